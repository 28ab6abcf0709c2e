// Attention as stages: plan, write K and V, attend, merge.
#include <algorithm>

#include "runner.h"

namespace pellucid {
namespace {

constexpr int64_t kMostPartialFloats = 8 << 20;  // beyond it, rows are done whole
constexpr int64_t kFewWrites = 8;                // rows that are written by one thread

}  // namespace

// Attention's arrays are used by one operation after the other, also by those that are recorded.
uint8_t* Runner::attention_space(int slot, size_t bytes) {
  if (attention_bytes_[slot] < bytes) {
    attention_[slot] = make_buffer(bytes);
    attention_bytes_[slot] = bytes;
  }
  if (recording_) recording_->buffers.push_back(attention_[slot]);
  return attention_[slot].get();
}

void Runner::attention(AttentionArgs args, int64_t max_positions) {
  const int64_t runs = (max_positions + kRun - 1) / kRun, parts = attention_parts(args.heads / args.kv_heads);
  const auto rows = static_cast<size_t>(args.rows);
  const size_t most_items = rows * static_cast<size_t>(runs * parts), most_listed = rows * static_cast<size_t>(runs + 1);
  args.num_threads = num_threads();
  // Touched only as far as a plan goes.
  uint8_t* plan = attention_space(0, 16 + 4 * (4 * rows + most_listed) + sizeof(AttentionItem) * most_items);
  args.counts = reinterpret_cast<int64_t*>(plan);
  args.partial_at = reinterpret_cast<int32_t*>(plan + 16);
  args.merge_rows = args.partial_at + rows;
  args.members = args.merge_rows + rows;
  args.group_starts = args.members + rows;
  args.item_rows = args.group_starts + rows;
  args.items = reinterpret_cast<AttentionItem*>(args.item_rows + most_listed);
  const int64_t floats = args.heads * args.partial_floats();
  args.most_partials = std::min(args.rows * runs, kMostPartialFloats / floats);
  args.partials = reinterpret_cast<float*>(attention_space(1, static_cast<size_t>(args.most_partials * floats) * 4));
  args.workspace_bytes = static_cast<int64_t>(Workspace::lay_out(args.head_dim, nullptr, nullptr));
  args.workspaces = attention_space(2, static_cast<size_t>(args.workspace_bytes * num_threads()));

  const auto plan_stage = [](const void* arguments, Worker&) { plan_attention(*static_cast<const AttentionArgs*>(arguments)); };
  const Stage stages[4] = {make_stage(+plan_stage, args, true),
                           make_stage(kernels_.attention_write, args, args.rows <= kFewWrites),
                           make_stage(kernels_.attention, args, false),
                           make_stage(kernels_.attention_merge, args, false)};
  submit(stages, 4);
}

}  // namespace pellucid
