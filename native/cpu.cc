// Which kernels this machine can run.
#include <cstring>

#include "kernels/kernels.h"

namespace pellucid {

#define PELLUCID_DECLARE(isa) namespace isa { extern const Kernels table; }
PELLUCID_DECLARE(scalar)
#ifdef PELLUCID_HAVE_avx2
PELLUCID_DECLARE(avx2)
#endif
#ifdef PELLUCID_HAVE_avx512
PELLUCID_DECLARE(avx512)
#endif
#ifdef PELLUCID_HAVE_neon
PELLUCID_DECLARE(neon)
#endif
#ifdef PELLUCID_HAVE_avx512bf16
namespace avx512bf16 {
extern const PairKernels pair_kernels;
bool instruction_is_two_fmas();
}  // namespace avx512bf16
#endif

namespace {

struct Available {
  const Kernels* tables[5] = {};
  const char* names[6] = {};
  int count = 0;

  void add(bool runs, const Kernels& k) {
    if (!runs) return;
    tables[count] = &k;
    names[count++] = k.name;
  }
  Available() {
#if defined(__x86_64__)
    __builtin_cpu_init();
#ifdef PELLUCID_HAVE_avx512
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
#ifdef PELLUCID_HAVE_avx512bf16
    // The same kernels but for one family.
    static const Kernels with_bf16 = [] {
      Kernels k = avx512::table;
      k.name = "avx512bf16";
      k.pairs = &avx512bf16::pair_kernels;
      return k;
    }();
    add(avx512 && __builtin_cpu_supports("avx512bf16") && avx512bf16::instruction_is_two_fmas(), with_bf16);
#endif
    add(avx512, avx512::table);
#endif
#ifdef PELLUCID_HAVE_avx2
    add(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"), avx2::table);
#endif
#endif
#ifdef PELLUCID_HAVE_neon
    add(true, neon::table);  // the build's baseline; every Arm server core since 2018 has dot products
#endif
    add(true, scalar::table);
  }
};

const Available& available() {
  static const Available a;
  return a;
}

}  // namespace

const Kernels& best_kernels() { return *available().tables[0]; }

const Kernels* find_kernels(const char* name) {
  const Available& a = available();
  for (int i = 0; i < a.count; ++i)
    if (std::strcmp(a.names[i], name) == 0) return a.tables[i];
  return nullptr;
}

const char* const* available_kernels() { return available().names; }

}  // namespace pellucid
