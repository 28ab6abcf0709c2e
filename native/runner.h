// Runs operations on a pool of threads with the kernels of one instruction set, and records them for replay.
//
// Recording: every operation runs as usual, and its stages are kept, with their pointers, in a Program. Replaying the
// program runs the same stages over the same buffers in one call. Knows no Python and no model.
#pragma once
#include <cstring>
#include <memory>
#include <vector>

#include "arena.h"
#include "buffer.h"
#include "kernels/kernels.h"
#include "packing.h"
#include "quant/packed.h"
#include "threads.h"

namespace pellucid {

struct Screen;
struct Draw;

inline constexpr int64_t kPackRows = 32;  // a multiple of every panel's rows

// A matrix in panels (quant/packed.h).
struct Matrix {
  std::shared_ptr<Arena> arena;
  uint8_t* data;
  std::vector<float> bias;  // empty: none
  int format;
  int64_t outputs, inputs, num_panels, panel_bytes;
  uint8_t* lower = nullptr;  // of a split matrix
  bool in_pairs = false;     // BF16 for activations that are bf16, too
  // Of a screened matrix (screen.h): its hot inputs, ascending, for which the panels' headers are filled; the energy of
  // each input so far, and in how many rows.
  std::vector<int32_t> hot = {};
  std::vector<double> energy = {};
  int num_rows_seen = 0;

  bool is_quantised() const { return quant::panel_rows(static_cast<quant::Format>(format)) == quant::kLanes; }
  int64_t num_bytes() const { return num_panels * (panel_bytes + (lower ? quant::lower_bytes(inputs) : 0)); }
  PackedWeight as_weight(float* y) const {
    return {data, bias.empty() ? nullptr : bias.data(), y, outputs, outputs, num_panels, panel_bytes, format, in_pairs, lower};
  }
};

template <class Args> Stage make_stage(void (*run)(const void*, Worker&), const Args& args, bool serial) {
  static_assert(sizeof(Args) <= Stage::kArgumentBytes);
  Stage stage;
  stage.run = run;
  stage.serial = serial;
  std::memcpy(stage.arguments, &args, sizeof(Args));
  return stage;
}

struct Program {
  std::vector<Stage> stages;
  std::vector<Buffer> buffers;
};

class Runner {
 public:
  Runner(int num_threads, const Kernels& kernels, std::shared_ptr<Arena> arena = std::make_shared<Arena>());

  const Kernels& kernels() const { return kernels_; }
  int num_threads() const { return pool_.num_threads(); }
  const std::shared_ptr<Arena>& arena() const { return arena_; }

  // Space for a matrix; `pack` fills rows [first, first + rows) from the file's bytes of these rows. `first` is a
  // multiple of kPackRows; rows are too, but for the last of the matrix. Sizes are the caller's to check.
  // split: in two streams (quant/packed.h), for a matrix that is to be screened; quant::can_split(format).
  // in_pairs: for activations that are rounded to bf16 (kernels/bf16_pairs.cc); quant::can_pair(format).
  std::shared_ptr<Matrix> allocate(int format, int64_t outputs, int64_t inputs, bool split = false, bool in_pairs = false);
  void pack(Matrix& matrix, int64_t first, const uint8_t* data, int64_t rows);
  // All rows, later: `data`, pages of a file's map, stays until finish_packing(). Operations wait for it.
  void pack_mapped(Matrix& matrix, const uint8_t* data);
  void finish_packing() { packing_.finish(); }

  void linear(const float* x, int64_t rows, const Matrix* const* weights, float* const* y, int num_weights);
  // y = (activation(x gate^T) * (x up^T)) down^T: the same bits as by `linear` and `glu`. More than one row.
  void gated_mlp(const float* x, int64_t rows, const Matrix& gate, const Matrix& up, const Matrix& down, int activation, float* y);
  // The product of the screen's rows with a split matrix, as bounds, and the choice from those of one row: screen.h.
  void screen(const float* x, Screen& screen);
  void peaks(const float* x, Screen& screen);  // the same from peaks of the product: Screen::Kind
  int64_t settle(Screen& screen, int row, const Draw& draw);

  void embed(EmbedArgs args);
  void rms_norm(const NormArgs& args);
  void layer_norm(const NormArgs& args);
  void rope(const RopeArgs& args);
  void glu(const GluArgs& args);
  void add(const AddArgs& args);
  void rows(const RowsArgs& args);
  // The plan and its buffers are filled in here. max_positions: what the block tables can hold.
  void attention(AttentionArgs args, int64_t max_positions);

  // Ceilings of this machine on all threads: bytes read in order a second; 8-bit operations (2 for each product) a second.
  double probe_read(int64_t bytes);
  double probe_dot(int64_t turns);

  void start_recording() { recording_ = std::make_unique<Program>(); }
  bool is_recording() const { return recording_ != nullptr; }
  std::unique_ptr<Program> stop_recording() { return std::move(recording_); }
  void run(const Program& program) {
    packing_.wait();
    pool_.run(program.stages.data(), static_cast<int64_t>(program.stages.size()));
  }

 private:
  Stage packing_stage(const Matrix& matrix, int64_t first, const uint8_t* data, int64_t rows) const;
  void submit(const Stage* stages, int num_stages);
  void fill_headers(Matrix& matrix);
  // Space that lives as long as the operation, or as the program that is being recorded.
  uint8_t* scratch(size_t bytes);
  LinearArgs linear_args(const float* x, int64_t rows, const Matrix* const* weights, float* const* y, int num_weights) const;
  uint8_t* attention_space(int slot, size_t bytes);

  const Kernels& kernels_;
  ThreadPool pool_;
  std::shared_ptr<Arena> arena_;
  Buffer scratch_;
  size_t scratch_bytes_ = 0;
  Buffer attention_[3];  // plan, partials, workspaces
  size_t attention_bytes_[3] = {0, 0, 0};
  std::unique_ptr<Program> recording_;
  Packing packing_{pool_};  // the last: ends before what it uses
};

}  // namespace pellucid
