// What this machine can do at most: sequential reads from memory, and int8 x int8 -> int32 products in registers.
// Stand-alone (no pellucid, no Python), so that the ceilings do not depend on what is measured against them.
//
//   g++ -O3 -march=native -std=c++20 -pthread probe.cc -o probe && ./probe THREADS
//   -> one JSON line: {"threads": 2, "read_gb_per_s": ..., "int8_gops": ...}      (1 multiply-add = 2 operations)
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>
#include <vector>
#include <sys/mman.h>
#if defined(__AVX512VNNI__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

namespace {

std::atomic<uint64_t> sink{0};  // keeps results alive

double seconds_of(int num_threads, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 1; i < num_threads; ++i) threads.emplace_back(work, i);
  work(0);
  for (auto& thread : threads) thread.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

constexpr int kLanes = 8;
typedef uint64_t Lanes __attribute__((vector_size(kLanes * 8), aligned(8)));

// Each thread reads its own part once per pass; 512 MiB in all is far beyond any cache of this class of machine.
double read_gb_per_s(int num_threads) {
  constexpr int64_t words = (int64_t{512} << 20) / 8;
  std::unique_ptr<uint64_t[], void (*)(void*)> memory(
      static_cast<uint64_t*>(std::aligned_alloc(size_t{2} << 20, words * 8)), std::free);
#ifdef MADV_HUGEPAGE
  madvise(memory.get(), words * 8, MADV_HUGEPAGE);
#endif
  const int64_t part = words / num_threads;
  seconds_of(num_threads, [&](int i) { std::fill_n(memory.get() + i * part, part, uint64_t(i) + 1); });
  double best = 1e9;
  for (int repeat = 0; repeat < 5; ++repeat) {
    best = std::min(best, seconds_of(num_threads, [&](int i) {
      const uint64_t* at = memory.get() + i * part;
      // Four streams in a part: more requests in flight than one stream's prefetcher asks for.
      const int64_t quarter = part / 4 / kLanes * kLanes;
      Lanes sums[4] = {};
      for (int64_t k = 0; k < quarter; k += kLanes)
        for (int s = 0; s < 4; ++s) sums[s] ^= *reinterpret_cast<const Lanes*>(at + s * quarter + k);
      for (int s = 0; s < 4; ++s)
        for (int j = 0; j < kLanes; ++j) sink ^= sums[s][j];
    }));
  }
  return double(part) * num_threads * 8 / best / 1e9;
}

constexpr int64_t kRounds = 40'000'000;
constexpr int kChains = 12;  // independent accumulators: enough to cover the latency of the product

// One round: kChains products of a whole register. Returns multiply-adds of one product.
int64_t product_rounds(int64_t rounds) {
#if defined(__AVX512VNNI__)
  __m512i sums[kChains], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5);
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm512_dpbusd_epi32(sums[c], a, b);
    asm volatile("" : "+v"(a), "+v"(b));
  }
  for (int c = 0; c < kChains; ++c) sink ^= uint64_t(_mm512_cvtsi512_si32(sums[c]));
  return 64;
#elif defined(__AVX2__)
  __m256i sums[kChains], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5), ones = _mm256_set1_epi16(1);
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c)
      sums[c] = _mm256_add_epi32(sums[c], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    asm volatile("" : "+x"(a), "+x"(b));
  }
  for (int c = 0; c < kChains; ++c) sink ^= uint64_t(_mm256_extract_epi32(sums[c], 0));
  return 32;
#elif defined(__ARM_FEATURE_DOTPROD)
  int32x4_t sums[kChains];
  int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(-5);
  for (auto& sum : sums) sum = vdupq_n_s32(0);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = vdotq_s32(sums[c], a, b);
    asm volatile("" : "+w"(a), "+w"(b));
  }
  for (int c = 0; c < kChains; ++c) sink ^= uint64_t(vaddvq_s32(sums[c]));
  return 16;
#else
  (void)rounds;
  return 0;
#endif
}

double int8_gops(int num_threads) {
  const int64_t per_product = product_rounds(1);
  if (per_product == 0) return 0;
  double best = 1e9;
  for (int repeat = 0; repeat < 3; ++repeat)
    best = std::min(best, seconds_of(num_threads, [](int) { product_rounds(kRounds); }));
  return 2.0 * double(per_product) * kChains * kRounds * num_threads / best / 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (threads < 1 || threads > 1024) {
    std::fprintf(stderr, "usage: probe THREADS (1 to 1024)\n");
    return 2;
  }
  std::printf("{\"threads\": %d, \"read_gb_per_s\": %.2f, \"int8_gops\": %.1f}\n", threads, read_gb_per_s(threads),
              int8_gops(threads));
  return sink.load() == 42 ? 3 : 0;
}
