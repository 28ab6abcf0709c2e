// The KV cache's layout, the arguments of attention, and the plan of one pass. No vector code here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pellucid {

inline constexpr int kRun = 256;             // positions of one attention run, aligned to absolute positions
inline constexpr int kPositionGroup = 16;    // positions that lie together in the cache: one vector of scores
inline constexpr int kTileQueries = 48;      // queries that share one reading of K and V, at most
inline constexpr int kChunkGroups = 4;       // groups that are read, or converted to float32, at a time
inline constexpr int kChunk = kChunkGroups * kPositionGroup;
inline constexpr int64_t kMaxHeadDim = 1024;

// Order as in `KV_FORMATS` of pellucid/capacity.py.
enum class KvFormat : int { kF32, kF16, kBf16, kQ8_0, kI16 };
inline constexpr int kNumKvFormats = 5;
inline constexpr int64_t kQ8Block = 32;        // values of head_dim that share one float16 scale
inline constexpr int64_t kQ8GroupBytes = 544;  // 16 positions of one block: 16 scales and 16 * 32 int8

// i16: a position's values of one head are integers within +-kKvSteps times one float32 scale. Sums of integers stay
// below 2^31, so they are exact whatever their order: kDotDims products of a query and a key, and 16 of weights and values.
inline constexpr int32_t kKvSteps = 8191, kQuerySteps = 4095, kWeightSteps = 16383;
inline constexpr int64_t kDotDims = 64;
inline constexpr int64_t kScalesBytes = 4 * kPositionGroup;  // of a group
static_assert(int64_t{kKvSteps} * kQuerySteps * kDotDims < int64_t{1} << 31);
static_assert(int64_t{kKvSteps} * kWeightSteps * kPositionGroup < int64_t{1} << 31);

constexpr int64_t q8_blocks(int64_t head_dim) { return (head_dim + kQ8Block - 1) / kQ8Block; }
// V rows and partial results are padded to whole vectors.
constexpr int64_t padded(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
constexpr int64_t even(int64_t head_dim) { return (head_dim + 1) / 2 * 2; }
constexpr int64_t value_bytes(KvFormat f) { return f == KvFormat::kF32 ? 4 : 2; }

// Bytes of one group of 16 positions of one KV head.
//   K, floats: [head_dim][16].            V, floats: [16][padded head_dim].
//   K, q8_0: for each block of 32 values float16 scale[16]; uint8 [8][16][4], value + 128, zeros past head_dim.
//   V, q8_0: float16 scale[blocks][16]; int8 [16][blocks * 32].
//   K, i16: float32 scale[16]; int16 [even head_dim / 2][16][2]. V, i16: float32 scale[16]; int16 [8][padded head_dim][2],
//   positions 2 i and 2 i + 1 beside one another.
constexpr int64_t key_group_bytes(KvFormat f, int64_t head_dim) {
  if (f == KvFormat::kI16) return kScalesBytes + even(head_dim) * 32;
  return f == KvFormat::kQ8_0 ? q8_blocks(head_dim) * kQ8GroupBytes : head_dim * 16 * value_bytes(f);
}
constexpr int64_t value_group_bytes(KvFormat f, int64_t head_dim) {
  if (f == KvFormat::kI16) return kScalesBytes + padded(head_dim) * 32;
  return f == KvFormat::kQ8_0 ? q8_blocks(head_dim) * kQ8GroupBytes : padded(head_dim) * 16 * value_bytes(f);
}

// Some rows, whose blocks in these runs are the same, with some heads of each group of heads.
struct AttentionItem {
  int32_t rows_at, num_rows;  // of item_rows
  int32_t head_at, num_heads; // num_rows * num_heads <= kTileQueries
  int32_t first_run, end_run;
  int32_t whole;              // 1: it has all runs of its rows, merges them and writes `out`
};

// K: [block][kv_head][position / 16][group]; V likewise; a block's K and V of one layer each lie together, and
// consecutive blocks are block_stride bytes apart.
struct AttentionArgs {
  const float* q;  // [rows, heads * head_dim]
  const float* k;  // [rows, kv_heads * head_dim]
  const float* v;
  float* out;  // [rows, heads * head_dim]
  uint8_t* k_cache;
  uint8_t* v_cache;
  const int32_t* positions;     // [rows]
  const int32_t* slots;         // [rows]
  const int32_t* sequence_ids;  // [rows]
  const int32_t* block_tables;  // [num_sequences, max_blocks]
  int64_t block_stride;
  int64_t rows, heads, kv_heads, head_dim, max_blocks, block_size;
  int64_t window;  // 0: none
  float scale;
  KvFormat format;

  // What follows is the runner's. The plan is made anew for each pass, from positions and block tables.
  int64_t num_threads;
  AttentionItem* items;   // [num_items]
  int32_t* item_rows;     // row indices
  int32_t* partial_at;    // [rows] the first partial of a row, -1: it has none
  int32_t* merge_rows;    // [num_merged] rows that have partials
  int32_t* members;       // [rows] for the planner
  int32_t* group_starts;  // [rows] for the planner
  int64_t* counts;        // num_items, num_merged
  // Partials of row r, one for each run that it sees, ascending: [partial_at[r] + run][head][2 + padded head_dim]:
  // maximum, sum, weighted sum of V.
  float* partials;
  int64_t most_partials;
  uint8_t* workspaces;  // one for each thread
  int64_t workspace_bytes;

  int64_t first_position(int64_t row) const {
    const int64_t first = window ? positions[row] - window + 1 : 0;
    return first > 0 ? first : 0;
  }
  int64_t first_run(int64_t row) const { return first_position(row) / kRun; }
  int64_t last_run(int64_t row) const { return positions[row] / kRun; }
  const int32_t* blocks_of(int64_t row) const { return block_tables + sequence_ids[row] * max_blocks; }
  int64_t partial_floats() const { return 2 + padded(head_dim); }
};

// What a thread needs; sizes for kTileQueries.
struct Workspace {
  float* scores;         // [queries][kRun], then the weights
  float* partials;       // [queries][2 + padded head_dim]: maximum, sum, weighted sum of V
  float* merged;         // [queries][padded head_dim]
  float* query;          // [block of queries][head_dim][queries of the block], times scale and log2(e)
  float* chunk;          // K [group][head_dim][16] or V [position][padded head_dim]
  float* value_scales;   // q8_0: [group][block][16]
  int8_t* rounded;       // q8_0: [block of queries][head_dim / 4][queries of the block][4]
  float* rounded_scale;  // q8_0: [block of queries][block of 32][queries of the block], times scale and log2(e)
  int32_t* offset;       // q8_0: the same, -128 * sum
  int16_t* steps;        // i16: [queries][padded head_dim], zeros behind head_dim
  float* step;           // i16: [queries] what one of them is, times scale and log2(e)
  int16_t* weights;      // i16: [queries][kChunk] of a chunk's positions, times their values' scales
  float* weight_step;    // i16: [queries]

  static size_t lay_out(int64_t head_dim, uint8_t* memory, Workspace* ws) {
    const int64_t n = kTileQueries, width = padded(head_dim), blocks = q8_blocks(head_dim);
    size_t used = 0;
    auto take = [&](auto** p, int64_t count) {
      if (ws) *p = reinterpret_cast<std::remove_reference_t<decltype(**p)>*>(memory + used);
      used += (static_cast<size_t>(count) * sizeof(**p) + 63) / 64 * 64;
    };
    Workspace none;
    Workspace* w = ws ? ws : &none;
    take(&w->scores, n * kRun);
    take(&w->partials, n * (2 + width));
    take(&w->merged, n * width);
    take(&w->query, n * head_dim);
    take(&w->chunk, kChunk * width);
    take(&w->value_scales, kChunk * blocks);
    take(&w->rounded, n * blocks * kQ8Block);
    take(&w->rounded_scale, n * blocks);
    take(&w->offset, n * blocks);
    take(&w->steps, n * width);
    take(&w->step, n);
    take(&w->weights, n * kChunk);
    take(&w->weight_step, n);
    return used;
  }
};

// Fills items, item_rows, partial_at, merge_rows and counts (native/attention_plan.cc).
void plan_attention(const AttentionArgs& args);

// A group of more heads than a tile has queries is cut into parts.
constexpr int64_t attention_parts(int64_t group) { return (group + kTileQueries - 1) / kTileQueries; }

}  // namespace pellucid
