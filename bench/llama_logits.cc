// The logits of llama.cpp for one sequence, in one pass, with its own defaults: a peer for bench/accuracy.py.
//
//   logits MODEL IDS LOGITS      IDS: int32 [tokens]; LOGITS, written: float32 [tokens, vocabulary]
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <vector>

#include "llama.h"

static void only_errors(ggml_log_level level, const char* text, void*) {
  if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

int main(int argc, char** argv) {
  if (argc != 4) return std::fprintf(stderr, "usage: logits MODEL IDS LOGITS\n"), 2;
  llama_log_set(only_errors, nullptr);
  llama_backend_init();
  std::ifstream in(argv[2], std::ios::binary | std::ios::ate);
  std::vector<int32_t> ids(static_cast<size_t>(in.tellg()) / 4);
  in.seekg(0);
  in.read(reinterpret_cast<char*>(ids.data()), static_cast<std::streamsize>(ids.size() * 4));
  llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (!model) return std::fprintf(stderr, "%s: not loaded\n", argv[1]), 1;
  const auto tokens = static_cast<uint32_t>(ids.size());
  llama_context_params params = llama_context_default_params();
  params.n_ctx = params.n_batch = params.n_ubatch = tokens;
  params.n_threads = params.n_threads_batch = 2;
  llama_context* context = llama_init_from_model(model, params);
  if (!context) return std::fprintf(stderr, "%s: no context\n", argv[1]), 1;
  llama_batch batch = llama_batch_init(static_cast<int32_t>(tokens), 0, 1);
  for (uint32_t i = 0; i < tokens; ++i) {
    batch.token[i] = ids[i];
    batch.pos[i] = static_cast<llama_pos>(i);
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  batch.n_tokens = static_cast<int32_t>(tokens);
  if (llama_decode(context, batch) != 0) return std::fprintf(stderr, "%s: decode failed\n", argv[1]), 1;
  const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
  std::ofstream out(argv[3], std::ios::binary);
  for (uint32_t i = 0; i < tokens; ++i)
    out.write(reinterpret_cast<const char*>(llama_get_logits_ith(context, static_cast<int32_t>(i))),
              static_cast<std::streamsize>(vocabulary) * 4);
  llama_batch_free(batch);
  llama_free(context);
  llama_model_free(model);
  return out.good() ? 0 : 1;
}
