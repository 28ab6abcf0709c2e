"""BlockPool: which KV blocks belong to whom. Accounting only: it knows no tensors and no model.

A block holds the keys and values of `block_size` consecutive positions. It is free, or held (by as many
sequences as its reference count says), or cached: held by nobody, but findable by its tokens until its
place is needed.

The prefix cache is a tree. A node is a block and its tokens; its path from the root spells the prefix that
its keys and values depend on. Looking up compares tokens, so no collision of hashes can give a wrong block.
Sequences of different salt have trees of their own: nothing of one can be found, or timed, from another.
Two invariants carry the rest:
- who holds a node's block holds the blocks of all its ancestors (equal blocks computed twice are merged), so
- in the order of release a node always comes after its descendants: evicting the oldest takes leaves only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from collections.abc import Sequence as Seq

from pellucid.engine.sequence import Sequence
from pellucid.errors import UsageError


class _Node:
    """tokens: 1 to block_size ids; a node with fewer than block_size is the tail of a finished sequence, a
    leaf."""

    __slots__ = ("block", "children", "parent", "tokens")

    def __init__(self, block: int, tokens: tuple[int, ...], parent: _Node | None) -> None:
        self.block = block
        self.tokens = tokens
        self.parent = parent
        self.children: dict[int, list[_Node]] = {}  # by their first token


class _Root(_Node):
    __slots__ = ("salt",)

    def __init__(self, salt: Hashable) -> None:
        super().__init__(-1, (), None)
        self.salt = salt


class BlockPool:
    """num_blocks blocks of block_size positions. With prefix_caching False nothing is kept after its last
    holder."""

    def __init__(self, num_blocks: int, block_size: int, *, prefix_caching: bool = True) -> None:
        if num_blocks < 1 or block_size < 1:
            raise UsageError(
                f"expected num_blocks >= 1 and block_size >= 1, got {num_blocks} and {block_size}"
            )
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.num_releases = 0  # grows whenever a block becomes available: who waits for room looks again
        self._free = list(range(num_blocks - 1, -1, -1))
        self._references = [0] * num_blocks
        self._nodes: list[_Node | None] = [None] * num_blocks
        self._cached: OrderedDict[int, None] = OrderedDict()  # blocks with a node and no holder, oldest first
        self._roots: dict[Hashable, _Root] = {}  # by salt; those of an empty tree are gone
        self._copies: list[tuple[int, int]] = []

    # --- counts ---------------------------------------------------------------------------------------
    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_cached(self) -> int:
        return len(self._cached)

    @property
    def num_available(self) -> int:
        """Blocks that can be given out: free ones, and cached ones by eviction."""
        return len(self._free) + len(self._cached)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_available

    def references(self, block: int) -> int:
        return self._references[block]

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def take_copies(self) -> list[tuple[int, int]]:
        """(source, destination) blocks to copy, one after the other in this order, before the next pass
        writes."""
        copies, self._copies = self._copies, []
        return copies

    # --- what sequences do ----------------------------------------------------------------------------
    def match(self, sequence: Sequence) -> int:
        """Shares the longest cached prefix with a sequence, beyond what it has; returns how many positions it
        gained.

        Any length from 1 token is found. Positions whose logits are wanted, or which somebody is to see computed, are
        never taken from the cache.
        """
        if not self.prefix_caching:
            return 0
        had, limit, index = sequence.num_computed, sequence.first_fresh, sequence.num_registered
        if limit <= had or (index == 0 and sequence.salt not in self._roots):
            return 0
        start = position = index * self.block_size
        tokens: list[int] = sequence.rows(start, limit).tolist()
        node = self._parent(sequence, index)
        while position < limit:
            node, length = _closest(node, tokens[position - start : position - start + self.block_size])
            if length == 0 or position + length <= had:
                break
            self._share(sequence, index, node.block)
            index += 1
            position += length
            if length < self.block_size:
                break
        if position <= had:
            return 0
        sequence.table_version += 1
        sequence.num_computed = position
        sequence.num_registered = position // self.block_size
        return position - had

    def _share(self, sequence: Sequence, index: int, block: int) -> None:
        """Entry `index` of a table, its last or the one after it, becomes this block of the tree."""
        table = sequence.block_table
        self._hold(block)
        if index < len(table):
            own, table[index] = table[index], block
            self._release(own)
        else:
            table.append(block)

    def reserve(self, sequence: Sequence, num_tokens: int) -> bool:
        """Makes positions [num_computed, num_tokens) writable. False if there are not enough blocks: what was
        given stays with the sequence, and the call can be repeated."""
        table = sequence.block_table
        index, offset = divmod(sequence.num_computed, self.block_size)
        if index < len(table) and not self._make_writable(sequence, index, offset):
            return False
        while len(table) * self.block_size < num_tokens:
            block = self._allocate()
            if block is None:
                return False
            table.append(block)
            sequence.table_version += 1
        return True

    def commit(self, sequence: Sequence) -> None:
        """Makes the blocks that are full and computed findable. Where another sequence has computed the same
        tokens meanwhile, its block is taken in place of ours: their values are the same bits."""
        if not self.prefix_caching:
            return
        size, table = self.block_size, sequence.block_table
        while (sequence.num_registered + 1) * size <= sequence.num_computed:
            i = sequence.num_registered
            tokens = tuple(sequence.rows(i * size, (i + 1) * size).tolist())
            parent = self._parent(sequence, i)
            twin = next((n for n in parent.children.get(tokens[0], ()) if n.tokens == tokens), None)
            if twin is None:
                self._register(table[i], tokens, parent)
            elif twin.block != table[i]:
                self._hold(twin.block)
                own, table[i] = table[i], twin.block
                self._release(own)
                sequence.table_version += 1
            sequence.num_registered += 1

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """The child, with no blocks yet, shares everything that the parent has computed; who writes first
        copies."""
        child.block_table = parent.block_table[: self.blocks_for(parent.num_computed)]
        references = self._references
        for block in child.block_table:  # the parent holds them: none is among the cached
            references[block] += 1
        child.num_computed = parent.num_computed
        child.num_registered = parent.num_registered
        child.table_version += 1

    def truncate(self, sequence: Sequence, num_computed: int) -> None:
        """Forgets the values of positions from num_computed on, and gives back the blocks that held only
        those."""
        kept = self.blocks_for(num_computed)
        for block in reversed(sequence.block_table[kept:]):
            self._release(block)
        del sequence.block_table[kept:]
        sequence.num_computed = min(sequence.num_computed, num_computed)
        sequence.num_registered = min(sequence.num_registered, num_computed // self.block_size)
        sequence.table_version += 1

    def free(self, sequence: Sequence, keep: int | None = None) -> None:
        """Gives back all blocks; what was computed stays cached, the unfilled last block included. keep: what nobody
        else holds is free from the block of position `keep` on."""
        if keep is not None:
            self._drop(sequence, keep // self.block_size)
        self.commit(sequence)
        index, length = divmod(sequence.num_computed, self.block_size)
        if self.prefix_caching and length:
            self._register_tail(sequence, index, length)
        self.truncate(sequence, 0)

    def _drop(self, sequence: Sequence, first: int) -> None:
        """Blocks from number `first` on are given back, and not cached unless somebody else uses them."""
        for block in reversed(sequence.block_table[first:]):  # leaves first
            node = self._nodes[block]
            if self._references[block] == 1 and node is not None and not node.children:
                self._unregister(block)
        self.truncate(sequence, min(sequence.num_computed, first * self.block_size))

    # --- blocks ---------------------------------------------------------------------------------------
    def _allocate(self) -> int | None:
        if self._free:
            block = self._free.pop()
        elif self._cached:
            block, _ = self._cached.popitem(last=False)
            self._unregister(block)
        else:
            return None
        self._references[block] = 1
        return block

    def _hold(self, block: int) -> None:
        if self._references[block] == 0:
            del self._cached[block]
        self._references[block] += 1

    def _release(self, block: int) -> None:
        self._references[block] -= 1
        if self._references[block] == 0:
            self.num_releases += 1
            if self._nodes[block] is None:
                self._free.append(block)
            else:
                self._cached[block] = None

    def _make_writable(self, sequence: Sequence, index: int, offset: int) -> bool:
        """Block `index` of the table may be written from `offset` on: nobody else sees that part of it."""
        block = sequence.block_table[index]
        node = self._nodes[block]
        alone = self._references[block] == 1
        if alone and node is None:
            return True
        if alone and node is not None and len(node.tokens) <= offset:  # a cached tail, now continued
            self._unregister(block)
            return True
        copy = self._allocate()
        if copy is None:
            if (
                alone
            ):  # nothing is left but what this sequence holds: better to forget the cached rest than to wait
                self._unregister(block)
            return alone
        self._copies.append((block, copy))
        sequence.block_table[index] = copy
        sequence.table_version += 1
        self._release(block)
        return True

    # --- the tree of prefixes -------------------------------------------------------------------------
    def _parent(self, sequence: Sequence, index: int) -> _Node:
        if index == 0:
            return self._roots.get(sequence.salt) or self._roots.setdefault(
                sequence.salt, _Root(sequence.salt)
            )
        node = self._nodes[sequence.block_table[index - 1]]
        if node is None:
            raise RuntimeError(f"block {index - 1} of a sequence is computed but not in the tree")
        return node

    def _register(self, block: int, tokens: tuple[int, ...], parent: _Node) -> None:
        node = self._nodes[block] = _Node(block, tokens, parent)
        parent.children.setdefault(tokens[0], []).append(node)

    def _register_tail(self, sequence: Sequence, index: int, length: int) -> None:
        """The last, unfilled block, unless it is known already or a sibling begins with the same tokens."""
        block = sequence.block_table[index]
        if self._nodes[block] is not None:
            return
        start = index * self.block_size
        tokens = tuple(sequence.rows(start, start + length).tolist())
        parent = self._parent(sequence, index)
        if _closest(parent, tokens)[1] < length:
            self._register(block, tokens, parent)

    def _unregister(self, block: int) -> None:
        node = self._nodes[block]
        if node is None or node.parent is None or node.children:
            raise RuntimeError(f"block {block} is no leaf of the tree")
        siblings = node.parent.children[node.tokens[0]]
        siblings.remove(node)
        if not siblings:
            del node.parent.children[node.tokens[0]]
            if isinstance(node.parent, _Root) and not node.parent.children:
                del self._roots[node.parent.salt]
        self._nodes[block] = None


def _closest(parent: _Node, tokens: Seq[int]) -> tuple[_Node, int]:
    """The child that shares the longest beginning with `tokens`, and its length; (parent, 0) if none does."""
    wanted = tuple(tokens)
    best, best_length = parent, 0
    for node in parent.children.get(wanted[0], ()):
        if node.tokens == wanted:
            return node, len(wanted)
        length = 0
        for ours, theirs in zip(wanted, node.tokens, strict=False):
            if ours != theirs:
                break
            length += 1
        if length > best_length:
            best, best_length = node, length
    return best, best_length
