// The arguments of every kernel and the table of kernels of one instruction set. No vector code here.
//
// Arrays are row-major and dense; float32 unless said. "Row" is one token of the pass.
#pragma once
#include <cstdint>

#include "kernels/attention.h"
#include "threads.h"

namespace pellucid {

inline constexpr int kMaxWeights = 4;  // matrices that share one x in a linear

// Activations rounded to int8. Rows come in tiles of up to `tile_rows`; a tile of R rows is, for each block of
// 32 inputs: int8 q[R][32]; float scale[R]; float scale * sum(q) [R]; int32 -sum(q) [R]; int32 -sum of each half [R][2].
inline constexpr int kActivationBytes = 52;  // for each row and block
struct QuantiseArgs {
  const float* x;  // [rows, inputs]
  uint8_t* out;
  int64_t rows, inputs;
};

struct PackedWeight {
  const uint8_t* data;  // panels (quant/packed.h)
  const float* bias;    // [outputs] or null
  float* y;             // [rows, outputs]
  int64_t y_stride;     // floats from row to row
  int64_t outputs, num_panels, panel_bytes;
  int format;           // quant::Format
  bool in_pairs;        // BF16 for activations that are bf16, too (quant/packed.h)
  const uint8_t* lower; // of a split matrix (quant/packed.h): the lower halves, and `data` the upper ones; or null
};

struct PairKernels;
struct LinearArgs {
  PackedWeight weight[kMaxWeights];
  int num_weights;
  bool quantised;   // some weights are: they read x rounded to int8
  const float* x;   // [rows, inputs]
  uint8_t* xq;      // x rounded to int8 (QuantiseArgs::out); at xq + pairs_at rounded to bf16
  uint8_t* own_xq;  // one row: each thread rounds it for itself, at own_xq + thread * own_stride
  int64_t own_stride, pairs_at;
  const PairKernels* pairs;  // null: no weight is in pairs
  int64_t rows, inputs, step;  // step: panels taken at a time
  // Many rows: groups of them, each times all panels, so that a thread has the same rows in all operations, as far as
  // that goes (Worker::take_near).
  int64_t row_groups;
};

// activation(x G^T) * (x U^T), of two weights with as many outputs, none of them in pairs.
struct GatedArgs {
  LinearArgs linear;  // weight: gate, up; their y are not used
  uint8_t* xq;        // the result, rounded to int8 (QuantiseArgs::out); outputs a multiple of 32
  float* out;         // or as it is, [rows, outputs], where xq is null
  int activation;     // Activation
};

// Rows [begin, end) of x.
struct RowRange {
  int64_t begin, end;
};

// Activations rounded to bf16, and their products with BF16 weights in pairs (kernels/bf16_pairs.cc). Rows of x come in
// tiles of nearly equal size; a tile of R rows is, for each block of 8 inputs, bf16 [R][8].
struct PairKernels {
  void (*round_row)(const float* x, int64_t inputs, uint8_t* out);  // a tile of one row
  void (*round)(const void*, Worker&);                              // QuantiseArgs
  void (*panel)(const LinearArgs& a, const PackedWeight& w, int64_t panel, const uint8_t* x);
};

// Rows of x as the screen (kernels/screen.cc) takes them, [num_blocks][rows]: one block of 32 inputs.
inline constexpr int kMaxScreenRows = 8;
struct ScreenBlock {
  int32_t start;  // 8 sum(q not hot) - 128 sum(q)
  float scale;
  float norm;     // scale * |q not hot|, and what the roundings may add
  int8_t q[32];
};
// A hot input: its values' lower nibbles are in group `group` of the panel's header; the others of each `q` are 0.
struct ScreenTerm {
  int32_t block, group;
  int8_t q[kMaxScreenRows][4];
};
struct ScreenArgs {
  PackedWeight weight;        // bias: padded to whole panels
  const ScreenBlock* blocks;
  const ScreenTerm* terms;    // ascending by block; ends with block -1
  float* upper;               // [rows][num_panels][16] bounds of the outputs; -inf past the end
  float* panel_upper;         // [rows][num_panels] the largest of each
  int32_t* likely;            // [rows][num_threads] the panel with the largest estimate; -1 before
  int32_t* unsound;           // [num_threads] 1 where a bound is NaN or infinite; 0 before
  int64_t rows, num_blocks, num_threads, step;
};

// Products of which the peaks stay (kernels/peaks.cc): one quantised weight, its y is not used.
inline constexpr int64_t kPanelsOfPeak = 16;
struct PeaksArgs {
  LinearArgs linear;
  float* upper;      // [rows][num_peaks][16] for each lane the largest of kPanelsOfPeak panels; -inf past the end
  float* highest;    // [rows][num_peaks] the largest of each
  int32_t* unsound;  // [num_threads] 1 where an output is NaN or infinite; 0 before
  int64_t num_peaks;
};

struct EmbedArgs {
  const int32_t* ids;
  float* out;  // [rows, width]
  const uint8_t* table;
  int64_t rows, width, row_bytes;
  int format;
  float scale;
};

struct NormArgs {
  const float* x;
  const float* weight;  // [width]
  const float* bias;    // [width]; layer norm only
  float* out;
  int64_t groups, width;  // each group of `width` values is normalised by itself
  float eps;
};

struct RopeArgs {
  const float* x;  // [rows, heads * head_dim]
  const int32_t* positions;
  const float* cosines;  // [max_positions, rotary / 2]
  const float* sines;
  float* out;
  int64_t rows, heads, head_dim, rotary;
  bool interleaved;
};

struct GluArgs {
  const float* gate;
  const float* up;  // null: the activation alone
  float* out;
  int64_t size;
  int activation;  // Activation
};
enum class Activation : int { kSilu, kGeluTanh, kGelu };

struct AddArgs {
  const float* x;
  const float* y;
  float* out;
  int64_t size, period;  // y has `period` values, repeated
};

struct RowsArgs {
  const float* x;
  const int32_t* index;
  float* out;
  int64_t num_rows, width;
};

struct ProbeArgs {
  const uint8_t* data;
  int8_t* sink;   // 64 bytes for each thread, so that nothing is optimised away
  int64_t size;   // bytes to read, or turns of 16 dots
};

struct Kernels {
  const char* name;
  int tile_rows;        // rows of an activation tile
  bool wide_is_signed;  // how 8-bit weights are stored
  void (*quantise)(const void*, Worker&);
  void (*linear)(const void*, Worker&);
  void (*gated)(const void*, Worker&);
  const PairKernels* pairs;
  void (*screen)(const void*, Worker&);
  void (*peaks)(const void*, Worker&);
  // The 16 exact outputs of one panel of a quantised matrix, for one row; those past the matrix's end are not written.
  void (*exact_panel)(const PackedWeight& w, const uint8_t* xq, int64_t blocks, int64_t panel, float* out);
  void (*rms_norm)(const void*, Worker&);
  void (*layer_norm)(const void*, Worker&);
  void (*rope)(const void*, Worker&);
  void (*glu)(const void*, Worker&);
  void (*add)(const void*, Worker&);
  void (*attention_write)(const void*, Worker&);
  void (*attention)(const void*, Worker&);
  void (*attention_merge)(const void*, Worker&);
  void (*probe_read)(const void*, Worker&);
  void (*probe_dot)(const void*, Worker&);
};

// The best table for this machine, or the one of that name (null if this machine or build lacks it).
const Kernels& best_kernels();
const Kernels* find_kernels(const char* name);
// Names of all tables that this machine can run, best first; null-terminated.
const char* const* available_kernels();

// Bytes of the rounding of `rows` rows.
constexpr int64_t activation_bytes(int64_t rows, int64_t inputs) { return rows * (inputs / 32) * kActivationBytes; }
constexpr int64_t pair_activation_bytes(int64_t rows, int64_t inputs) { return rows * ((inputs + 7) / 8) * 16; }

}  // namespace pellucid
