// The only folder that knows Python: one file for each family of bindings, each adds itself to the module.
#pragma once
#include <nanobind/nanobind.h>

namespace pellucid::bind {
void bind_memory(nanobind::module_& m);    // of weights, and of the arrays of a pass
void bind_ops(nanobind::module_& m);       // thread pool, packed matrices, kernels; after memory
void bind_text(nanobind::module_& m);      // vocabularies, SPM and BPE merging
void bind_sampling(nanobind::module_& m);  // log-softmax, top-k, keyed noise
void bind_cuts(nanobind::module_& m);      // cuts by probability and entropy, penalties for repeats
void bind_files(nanobind::module_& m);     // scanning of file headers
}  // namespace pellucid::bind
