// Every instruction set present against the plain C++ kernels, bit for bit, without Python: for cross compiling,
// emulators and sanitizers. Prints one line for each comparison that fails; exit code 1 if any did.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "arena.h"
#include "attention_reference.h"
#include "quant/packed.h"
#include "runner.h"
#include "sampling/sampling.h"
#include "screen.h"
#include "temporaries.h"

using namespace pellucid;

namespace {

std::mt19937 rng(12345);
int failures = 0, comparisons = 0;

std::vector<float> random_floats(size_t n, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> x(n);
  for (float& v : x) v = normal(rng);
  return x;
}

uint16_t small_half() {  // a positive half between 2^-9 and 2^-6
  return static_cast<uint16_t>(((6 + rng() % 3) << 10) | (rng() & 0x3ff));
}

// Random blocks with sane scales.
std::vector<uint8_t> random_weight(const quant::FormatInfo& f, int64_t rows, int64_t inputs) {
  const int64_t blocks = rows * inputs / f.block_size;
  std::vector<uint8_t> bytes(static_cast<size_t>(blocks * f.block_bytes));
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
  for (int64_t i = 0; i < blocks; ++i) {
    uint8_t* p = bytes.data() + i * f.block_bytes;
    auto put = [&](size_t at) {
      const uint16_t h = small_half();
      std::memcpy(p + at, &h, 2);
    };
    using quant::Format;
    switch (f.format) {
      case Format::F32: {
        const float x = static_cast<float>(static_cast<int>(rng() % 2001) - 1000) / 1000.0f;
        std::memcpy(p, &x, 4);
        break;
      }
      case Format::F16: put(0); break;
      case Format::BF16: p[1] = static_cast<uint8_t>((p[1] & 0x80) | 0x3d); break;
      case Format::Q4_0: case Format::Q5_0: case Format::Q8_0: put(0); break;
      case Format::Q4_1: case Format::Q5_1: put(0); put(2); break;
      case Format::Q4_K: case Format::Q5_K: put(0); put(2); break;
      case Format::Q2_K: put(80); put(82); break;
      case Format::Q3_K: put(108); break;
      case Format::Q6_K: put(208); break;
    }
  }
  return bytes;
}

void compare(const std::string& what, const std::vector<float>& a, const std::vector<float>& b) {
  ++comparisons;
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], 4) != 0) {
      ++failures;
      std::printf("%s: value %zu is %.9g, expected %.9g\n", what.c_str(), i, a[i], b[i]);
      return;
    }
}

// The dequantised product in double, with x rounded as the kernels round it.
void check_accuracy(const std::string& what, const quant::FormatInfo& f, const std::vector<uint8_t>& bytes,
                    const std::vector<float>& x, int64_t rows, int64_t outputs, int64_t inputs, const std::vector<float>& y) {
  std::vector<float> w(static_cast<size_t>(outputs * inputs));
  quant::dequantize_row(f.format, bytes.data(), w.data(), outputs * inputs);
  ++comparisons;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < outputs; ++o) {
      double sum = 0, magnitude = 0;
      for (int64_t b = 0; b < (inputs + 31) / 32; ++b) {
        const int64_t end = std::min(inputs, 32 * b + 32);
        float largest = 0;
        for (int64_t k = 32 * b; k < end; ++k) largest = std::max(largest, std::fabs(x[static_cast<size_t>(r * inputs + k)]));
        for (int64_t k = 32 * b; k < end; ++k) {
          double v = x[static_cast<size_t>(r * inputs + k)];
          if (f.block_size > 1) v = std::nearbyint(static_cast<float>(v) * (127.0f / largest)) * static_cast<double>(largest / 127.0f);
          sum += v * w[static_cast<size_t>(o * inputs + k)];
          magnitude += std::fabs(v * w[static_cast<size_t>(o * inputs + k)]);
        }
      }
      const double got = y[static_cast<size_t>(r * outputs + o)];
      if (!(std::fabs(got - sum) <= 4e-6 * magnitude)) {
        ++failures;
        std::printf("%s: row %lld output %lld is %.9g, exactly %.9g\n", what.c_str(), static_cast<long long>(r),
                    static_cast<long long>(o), got, sum);
        return;
      }
    }
}

std::vector<float> run_linear(Runner& runner, const quant::FormatInfo& f, const std::vector<uint8_t>& bytes,
                              const std::vector<float>& x, int64_t rows, int64_t outputs, int64_t inputs,
                              const std::vector<float>& bias, bool in_pairs = false) {
  auto m = runner.allocate(static_cast<int>(f.format), outputs, inputs, false, in_pairs);
  const int64_t row_bytes = inputs / f.block_size * f.block_bytes;
  for (int64_t first = 0; first < outputs; first += 2 * kPackRows)
    runner.pack(*m, first, bytes.data() + first * row_bytes, std::min(2 * kPackRows, outputs - first));
  m->bias = bias;
  std::vector<float> y(static_cast<size_t>(rows * outputs), NAN);
  const Matrix* w = m.get();
  float* out = y.data();
  runner.linear(x.data(), rows, &w, &out, 1);
  return y;
}

void test_linear(Runner& twin, Runner& runner, const std::string& name) {
  for (const quant::FormatInfo& f : quant::kFormats)
    for (int64_t outputs : {1, 16, 33, 70}) {
      // 33 outputs have more blocks than are taken at a time (native/kernels/matmul.cc), by an odd number.
      const int64_t blocks32 = outputs == 33 ? 35 : 3, blocks256 = outputs == 33 ? 5 : 2;
      const int64_t inputs = f.block_size == 256 ? 256 * blocks256 : f.block_size == 32 ? 32 * blocks32 : 75;
      const auto bytes = random_weight(f, outputs, inputs);
      const auto bias = random_floats(static_cast<size_t>(outputs));
      const auto all = random_floats(static_cast<size_t>(19 * inputs));
      const auto expected = run_linear(twin, f, bytes, all, 19, outputs, inputs, {});
      const std::string what = name + " linear " + std::string(f.name) + " x" + std::to_string(outputs);
      if (&twin == &runner) check_accuracy(what, f, bytes, all, 19, outputs, inputs, expected);
      for (int64_t rows : {1, 2, 3, 5, 8, 9, 19}) {
        const std::vector<float> x(all.begin(), all.begin() + rows * inputs);
        compare(what + " rows " + std::to_string(rows), run_linear(runner, f, bytes, x, rows, outputs, inputs, {}),
                {expected.begin(), expected.begin() + rows * outputs});
      }
      compare(what + " bias", run_linear(runner, f, bytes, all, 19, outputs, inputs, bias),
              run_linear(twin, f, bytes, all, 19, outputs, inputs, bias));
    }
}

std::shared_ptr<Matrix> random_matrix(Runner& runner, const quant::FormatInfo& f, int64_t outputs, int64_t inputs) {
  auto m = runner.allocate(static_cast<int>(f.format), outputs, inputs);
  const auto bytes = random_weight(f, outputs, inputs);
  runner.pack(*m, 0, bytes.data(), outputs);
  m->bias = random_floats(static_cast<size_t>(outputs));
  return m;
}

// A gated MLP in one against its operations one by one, on the same instruction set: `linear` and `glu` are compared apart.
void test_gated(Runner& runner, const std::string& name) {
  const auto formats = std::size(quant::kFormats);
  for (size_t i = 0; i < formats; ++i) {
    const quant::FormatInfo &f = quant::kFormats[i], &g = quant::kFormats[(i + 1) % formats], &last = quant::kFormats[(i + 4) % formats];
    const int64_t inputs = 256, middle = last.block_size == 1 ? 75 : 256, outputs = 33;
    const auto gate = random_matrix(runner, f, middle, inputs), up = random_matrix(runner, g, middle, inputs);
    const auto down = random_matrix(runner, last, outputs, middle);
    const auto x = random_floats(static_cast<size_t>(77 * inputs));
    for (int64_t rows : {2, 9, 64, 77}) {
      std::vector<float> a(static_cast<size_t>(rows * middle)), b(a), h(a), want(static_cast<size_t>(rows * outputs)), got(want);
      const Matrix* both[] = {gate.get(), up.get()};
      float* to[] = {a.data(), b.data()};
      const int activation = static_cast<int>(i % 3);
      runner.linear(x.data(), rows, both, to, 2);
      runner.glu({a.data(), b.data(), h.data(), rows * middle, activation});
      const Matrix* one = down.get();
      float* y = want.data();
      runner.linear(h.data(), rows, &one, &y, 1);
      runner.gated_mlp(x.data(), rows, *gate, *up, *down, activation, got.data());
      compare(name + " gated " + std::string(f.name) + " " + std::string(last.name) + " rows " + std::to_string(rows), got, want);
    }
  }
}

// What the products of BF16 in pairs make of a value: 8 bits, to nearest, ties to even; what is then below 2^-56 is 0.
float rounded_to_bf16(float x) {
  if (!std::isfinite(x) || x == 0) return x;
  int exponent;
  std::frexp(x, &exponent);
  const double r = std::ldexp(std::nearbyint(std::ldexp(static_cast<double>(x), 8 - exponent)), exponent - 8);
  return std::fabs(r) < 0x1p-56 ? 0.0f : static_cast<float>(r);  // from 2^128 on the conversion gives infinity
}

// The same by definition: one chain for each output, in each pair of inputs the odd one first.
std::vector<float> pairs_by_definition(const std::vector<uint8_t>& bytes, const std::vector<float>& x, int64_t rows, int64_t outputs,
                                       int64_t inputs, const std::vector<float>& bias) {
  std::vector<float> w(static_cast<size_t>(outputs * inputs)), y;
  quant::dequantize_row(quant::Format::BF16, bytes.data(), w.data(), outputs * inputs);
  for (float& v : w) v = rounded_to_bf16(v);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < outputs; ++o) {
      float sum = 0;
      for (int64_t k = 0; k < inputs; k += 2)
        for (int64_t i : {k + 1, k})
          if (i < inputs) sum = std::fmaf(w[static_cast<size_t>(o * inputs + i)], rounded_to_bf16(x[static_cast<size_t>(r * inputs + i)]), sum);
      y.push_back(bias.empty() ? sum : sum + bias[static_cast<size_t>(o)]);
    }
  return y;
}

float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// 0: ordinary; 1: from far below 2^-126 to 1, so that products are subnormal or would be; 2: now and then any bits at all,
// infinities and NaN among them.
float test_value(int kind) {
  const uint32_t bits = static_cast<uint32_t>(rng());
  if (kind == 1 && rng() % 2) return from_bits((bits & 0x807fffffu) | (rng() % 128) << 23);
  if (kind == 1) return from_bits((bits & 0x807fffffu) | (68 + rng() % 6) << 23);  // around 2^-56
  if (kind == 2 && rng() % 100 == 0) return from_bits(bits);
  return from_bits((bits & 0x807fffffu) | (122 + rng() % 6) << 23);
}

void test_pairs(Runner& runner, const std::string& name) {
  const quant::FormatInfo& f = quant::info(quant::Format::BF16);
  const auto without_payload = [](std::vector<float> x) {  // processors differ in the bits of NaN
    for (float& v : x)
      if (std::isnan(v)) v = NAN;
    return x;
  };
  for (int kind : {0, 1, 2})
    for (int64_t outputs : {1, 16, 33, 70})
      for (int64_t inputs : {1, 7, 8, 75, 96, 521}) {
        std::vector<uint8_t> bytes(static_cast<size_t>(outputs * inputs * 2));
        for (size_t i = 0; i < bytes.size(); i += 2) {
          const float v = test_value(kind);
          std::memcpy(&bytes[i], reinterpret_cast<const char*>(&v) + 2, 2);
        }
        const int64_t most = 38;
        std::vector<float> all(static_cast<size_t>(most * inputs));
        for (float& v : all) v = test_value(kind);
        const auto bias = outputs == 33 ? random_floats(static_cast<size_t>(outputs)) : std::vector<float>{};
        const auto expected = without_payload(pairs_by_definition(bytes, all, most, outputs, inputs, bias));
        const std::string what = name + " pairs, values " + std::to_string(kind) + " " + std::to_string(outputs) + "x" + std::to_string(inputs);
        for (int64_t rows : {1, 2, 3, 5, 8, 12, 13, 38}) {
          const std::vector<float> x(all.begin(), all.begin() + rows * inputs);
          compare(what + " rows " + std::to_string(rows), without_payload(run_linear(runner, f, bytes, x, rows, outputs, inputs, bias, true)),
                  {expected.begin(), expected.begin() + rows * outputs});
        }
      }
}

// What is settled from bounds, against the choice of these logits.
void check_choice(Runner& runner, const std::string& what, Screen& screen, int row, std::vector<float> logits, float temperature, double min_p) {
  const sampling::NoiseKey key{rng(), static_cast<uint32_t>(row), 7, 0};
  const auto outputs = static_cast<int64_t>(logits.size());
  if (temperature != 0.0f && temperature != 1.0f)
    for (float& v : logits) v /= temperature;
  if (temperature != 0.0f && min_p > 0.0) sampling::keep_min_p(logits.data(), outputs, min_p, 1);
  const int64_t expected = temperature == 0.0f ? sampling::maximum(logits.data(), outputs).id : sampling::gumbel_argmax(logits.data(), outputs, key);
  const int64_t got = runner.settle(screen, row, {temperature, min_p, key});
  ++comparisons;
  if (got != expected) {
    ++failures;
    std::printf("%s: temperature %g min_p %g chose %lld, expected %lld\n", what.c_str(), static_cast<double>(temperature), min_p,
                static_cast<long long>(got), static_cast<long long>(expected));
  }
}

// A head in two streams: the same product, true bounds, and the choices of the whole row of logits.
void test_screen(Runner& twin, Runner& runner, const std::string& name) {
  const quant::FormatInfo& f = quant::info(quant::Format::Q8_0);
  for (int64_t outputs : {1, 16, 33, 150, 1500})
    for (int64_t inputs : {32, 96, 640}) {
      auto bytes = random_weight(f, outputs, inputs);
      const int64_t row_bytes = inputs / 32 * f.block_bytes;
      for (int64_t r = 3; r < outputs; r += 5)  // equal rows: ties
        std::memcpy(bytes.data() + r * row_bytes, bytes.data() + (r - 3) * row_bytes, static_cast<size_t>(row_bytes));
      const auto bias = outputs == 33 ? random_floats(static_cast<size_t>(outputs), 40.0f) : std::vector<float>{};
      const std::string what = name + " screen " + std::to_string(outputs) + "x" + std::to_string(inputs);
      auto all = random_floats(static_cast<size_t>(19 * inputs));
      for (int64_t k = 0; k < inputs; k += 11) all[static_cast<size_t>(inputs + k)] *= 50.0f;  // large inputs
      const auto exact = run_linear(twin, f, bytes, all, 19, outputs, inputs, bias);

      auto m = runner.allocate(static_cast<int>(f.format), outputs, inputs, true);
      for (int64_t first = 0; first < outputs; first += kPackRows)
        runner.pack(*m, first, bytes.data() + first * row_bytes, std::min(kPackRows, outputs - first));
      m->bias = bias;
      if (!bias.empty()) m->bias.resize(static_cast<size_t>(m->num_panels * 16));
      for (int64_t rows : {1, 2, 5, 8, 9, 19}) {
        std::vector<float> y(static_cast<size_t>(rows * outputs), NAN);
        const Matrix* w = m.get();
        float* out = y.data();
        runner.linear(all.data(), rows, &w, &out, 1);
        compare(what + " split, rows " + std::to_string(rows), y, {exact.begin(), exact.begin() + rows * outputs});
      }

      Screen one(m, runner.num_threads(), 1), three(m, runner.num_threads(), 3), eight(m, runner.num_threads(), 8);
      Screen peaks(m, runner.num_threads(), 19, Screen::Kind::kPeaks);
      // Two rows by themselves, three together, eight together; then all, by the peaks of their logits.
      for (int64_t i = 0; i < 13 + 19; ++i) {
        const int64_t row = i < 13 ? i : i - 13;
        Screen& screen = i < 2 ? one : i < 5 ? three : i < 13 ? eight : peaks;
        const int number = static_cast<int>(i < 2 ? 0 : i < 5 ? i - 2 : i < 13 ? i - 5 : i - 13);
        if (number == 0 && i < 13) runner.screen(all.data() + row * inputs, screen);
        if (number == 0 && i >= 13) runner.peaks(all.data(), screen);
        const float* z = exact.data() + row * outputs;
        ++comparisons;
        for (int64_t k = 0; k < outputs; ++k)
          if (const float upper = screen.upper_of(number)[16 * screen.bound_of(k / 16) + k % 16]; !(z[k] <= upper)) {
            ++failures;
            std::printf("%s: output %lld is %.9g, above its bound %.9g\n", what.c_str(), static_cast<long long>(k), z[k], upper);
            break;
          }
        for (float temperature : {0.0f, 1.0f, 0.3f, 40.0f})
          for (double min_p : {0.0, 0.02, 1.0}) check_choice(runner, what, screen, number, {z, z + outputs}, temperature, min_p);
      }
      all[5 * static_cast<size_t>(inputs)] = INFINITY;
      runner.peaks(all.data(), peaks);
      ++comparisons;
      if (runner.settle(peaks, 1, {}) != kUnsettled) {
        ++failures;
        std::printf("%s: infinity was settled\n", what.c_str());
      }
      all[0] = NAN;
      runner.screen(all.data(), one);
      ++comparisons;
      if (runner.settle(one, 0, {}) != kUnsettled) {
        ++failures;
        std::printf("%s: NaN was settled\n", what.c_str());
      }
    }
}

template <class F> std::vector<float> outputs_of(size_t n, F f) {
  std::vector<float> out(n, NAN);
  f(out.data());
  return out;
}

void test_rowwise(Runner& twin, Runner& runner, const std::string& name) {
  for (int64_t width : {5, 16, 64, 70, 576}) {
    const int64_t rows = 21;
    const size_t n = static_cast<size_t>(rows * width);
    const auto x = random_floats(n, 3.0f), y = random_floats(n), w = random_floats(static_cast<size_t>(width)),
               b = random_floats(static_cast<size_t>(width));
    const std::string at = " width " + std::to_string(width);
    auto both = [&](const char* op, auto f) {
      compare(name + " " + op + at, outputs_of(n, [&](float* o) { f(runner, o); }), outputs_of(n, [&](float* o) { f(twin, o); }));
    };
    both("rms_norm", [&](Runner& r, float* o) { r.rms_norm({x.data(), w.data(), nullptr, o, rows, width, 1e-5f}); });
    both("layer_norm", [&](Runner& r, float* o) { r.layer_norm({x.data(), w.data(), b.data(), o, rows, width, 1e-5f}); });
    for (int a = 0; a < 3; ++a) {
      both("glu", [&](Runner& r, float* o) { r.glu({x.data(), y.data(), o, rows * width, a}); });
      both("activation", [&](Runner& r, float* o) { r.glu({x.data(), nullptr, o, rows * width, a}); });
    }
    both("add", [&](Runner& r, float* o) { r.add({x.data(), y.data(), o, rows * width, rows * width}); });
    both("add row", [&](Runner& r, float* o) { r.add({x.data(), w.data(), o, rows * width, width}); });
    if (width % 2 == 0) {
      std::vector<int32_t> positions(static_cast<size_t>(rows));
      for (int64_t i = 0; i < rows; ++i) positions[static_cast<size_t>(i)] = static_cast<int32_t>(i % 7);
      const auto c = random_floats(static_cast<size_t>(7 * (width / 2))), s = random_floats(static_cast<size_t>(7 * (width / 2)));
      for (bool interleaved : {false, true})
        both("rope", [&](Runner& r, float* o) {
          r.rope({x.data(), positions.data(), c.data(), s.data(), o, rows, 1, width, width, interleaved});
        });
    }
  }
}

// Exponentials through silu of large values, and saturation.
void test_activation_accuracy(Runner& runner, const std::string& name) {
  std::vector<float> x;
  for (float v = -120.0f; v < 120.0f; v += 0.0137f) x.push_back(v);
  std::vector<float> y(x.size());
  runner.glu({x.data(), nullptr, y.data(), static_cast<int64_t>(x.size()), 0});
  ++comparisons;
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = static_cast<double>(x[i]) / (1.0 + std::exp(-static_cast<double>(x[i])));
    if (!(std::fabs(y[i] - exact) <= 3e-7 * std::fabs(exact) + 1e-36)) {
      ++failures;
      std::printf("%s silu(%g) is %g, exactly %g\n", name.c_str(), x[i], y[i], exact);
      return;
    }
  }
}

// All positions in chunks of `chunk` rows, blocks of the cache in a shuffled order.
std::vector<float> run_attention(Runner& runner, const AttentionCase& c, const std::vector<float>& q, const std::vector<float>& k,
                                 const std::vector<float>& v, int64_t chunk) {
  const int64_t blocks = (c.positions + c.block_size - 1) / c.block_size;
  // What is not written must not matter: all bits set are NaN in the float formats and in the scales of q8_0.
  const int64_t groups = c.kv_heads * c.block_size / kPositionGroup;
  const int64_t stride = groups * (key_group_bytes(c.format, c.head_dim) + value_group_bytes(c.format, c.head_dim));
  std::vector<uint8_t> cache(static_cast<size_t>((blocks + 1) * stride), 0xff);
  std::vector<int32_t> table(static_cast<size_t>(blocks));
  for (int64_t b = 0; b < blocks; ++b) table[static_cast<size_t>(b)] = static_cast<int32_t>((b * 7 + 3) % (blocks + 1) );
  // a permutation only if 7 and blocks + 1 have no common factor
  if ((blocks + 1) % 7 == 0) for (int64_t b = 0; b < blocks; ++b) table[static_cast<size_t>(b)] = static_cast<int32_t>(blocks - b);
  std::vector<float> out(static_cast<size_t>(c.positions * c.heads * c.head_dim), NAN);
  for (int64_t first = 0; first < c.positions; first += chunk) {
    const int64_t n = std::min(chunk, c.positions - first);
    std::vector<int32_t> positions, slots, sequences(static_cast<size_t>(n), 0);
    for (int64_t p = first; p < first + n; ++p) {
      positions.push_back(static_cast<int32_t>(p));
      slots.push_back(static_cast<int32_t>(table[static_cast<size_t>(p / c.block_size)] * c.block_size + p % c.block_size));
    }
    AttentionArgs a = {};
    a.q = q.data() + first * c.heads * c.head_dim;
    a.k = k.data() + first * c.kv_heads * c.head_dim;
    a.v = v.data() + first * c.kv_heads * c.head_dim;
    a.out = out.data() + first * c.heads * c.head_dim;
    a.k_cache = cache.data();
    a.v_cache = cache.data() + groups * key_group_bytes(c.format, c.head_dim);
    a.block_stride = stride;
    a.positions = positions.data();
    a.slots = slots.data();
    a.sequence_ids = sequences.data();
    a.block_tables = table.data();
    a.rows = n;
    a.heads = c.heads;
    a.kv_heads = c.kv_heads;
    a.head_dim = c.head_dim;
    a.max_blocks = blocks;
    a.block_size = c.block_size;
    a.window = c.window;
    a.scale = 0.125f;
    a.format = c.format;
    runner.attention(a, blocks * c.block_size);
  }
  return out;
}

// Against the definition on what the format makes of q, K and V: only float32 arithmetic lies between, the same for all
// formats. And that against the definition on what was not rounded: within the bound of the format's steps.
void check_attention(const std::string& what, const AttentionCase& c, const std::vector<float>& q, const std::vector<float>& k,
                     const std::vector<float>& v, const std::vector<float>& out) {
  constexpr double kTolerance = 1e-5, kScale = 0.125;
  comparisons += 2;
  const Rounded rounded = attend_in_double(c, round_inputs(c, q, k, v), kScale);
  AttentionCase plain = c;
  plain.format = KvFormat::kF32;
  const Rounded exact = attend_in_double(plain, round_inputs(plain, q, k, v), kScale);
  double worst = 0, farthest = 0, share = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const double error = std::fabs(out[i] - rounded.values[i]), distance = std::fabs(out[i] - exact.values[i]);
    const double slack = kTolerance * (1 + std::fabs(exact.values[i])) + rounded.weighed[i], bound = rounded.moved[i] + slack;
    worst = std::max(worst, error / (1 + std::fabs(exact.values[i])));
    farthest = std::max(farthest, distance);
    share = std::max(share, distance / bound);
    if (error <= slack && distance <= bound) continue;
    ++failures;
    std::printf("%s: value %zu is %.9g, on rounded inputs %.9g, exactly %.9g, which may be %.3g apart\n", what.c_str(), i,
                static_cast<double>(out[i]), rounded.values[i], exact.values[i], bound);
    return;
  }
  std::printf("%s: arithmetic %.2g; the format moves it by %.2g, at most %.0f%% of the bound\n", what.c_str(), worst, farthest,
              100 * share);
}

void test_attention(Runner& twin, Runner& runner, const std::string& name) {
  constexpr auto kF32 = KvFormat::kF32, kF16 = KvFormat::kF16, kBf16 = KvFormat::kBf16, kQ8 = KvFormat::kQ8_0,
                 kI16 = KvFormat::kI16;
  const AttentionCase cases[] = {
      {4, 1, 64, 0, 300, 32, kF16},  {3, 3, 16, 0, 70, 16, kF32},     {9, 3, 64, 100, 530, 32, kF32},
      {12, 1, 32, 0, 40, 64, kF16},  {2, 2, 20, 33, 300, 32, kF32},   {8, 2, 256, 40, 90, 256, kF16},
      {7, 1, 80, 0, 270, 32, kBf16}, {9, 3, 64, 100, 530, 32, kQ8},   {2, 2, 20, 33, 300, 32, kQ8},
      {50, 1, 8, 0, 300, 32, kF16},  {4, 1, 256, 300, 600, 64, kQ8},  {1, 1, 1, 0, 40, 16, kBf16},
      {9, 3, 64, 100, 530, 32, kI16}, {2, 2, 21, 33, 300, 32, kI16},  {4, 1, 256, 300, 600, 64, kI16},
      {50, 1, 8, 0, 300, 32, kI16},   {1, 1, 1, 0, 40, 16, kI16},     {7, 1, 80, 0, 270, 32, kI16},
  };
  for (const AttentionCase& c : cases) {
    const auto q = random_floats(static_cast<size_t>(c.positions * c.heads * c.head_dim)),
               k = random_floats(static_cast<size_t>(c.positions * c.kv_heads * c.head_dim)),
               v = random_floats(static_cast<size_t>(c.positions * c.kv_heads * c.head_dim));
    const std::string what = name + " attention heads " + std::to_string(c.heads) + "/" + std::to_string(c.kv_heads) + " dim " +
                             std::to_string(c.head_dim) + " format " + std::to_string(static_cast<int>(c.format));
    const auto expected = run_attention(twin, c, q, k, v, c.positions);
    if (&twin == &runner) check_attention(what, c, q, k, v, expected);
    // 11: a tile of rows that see one run and rows that see two, cut into its runs
    for (int64_t chunk : {1, 7, 11, 64, 1000})
      compare(what + " chunk " + std::to_string(chunk), run_attention(runner, c, q, k, v, chunk), expected);
  }
}

void test_recording(Runner& runner, const std::string& name) {
  const auto w = random_floats(64);
  auto buffer = random_floats(640);
  std::vector<float> eager(640), replayed(640);
  runner.start_recording();
  runner.rms_norm({buffer.data(), w.data(), nullptr, replayed.data(), 10, 64, 1e-5f});
  runner.add({replayed.data(), buffer.data(), replayed.data(), 640, 640});
  const auto program = runner.stop_recording();
  const auto other = random_floats(640);
  std::memcpy(buffer.data(), other.data(), 640 * 4);
  runner.run(*program);
  runner.rms_norm({other.data(), w.data(), nullptr, eager.data(), 10, 64, 1e-5f});
  runner.add({eager.data(), other.data(), eager.data(), 640, 640});
  compare(name + " recording", replayed, eager);
}

// Two threads write what is allocated while a third touches the pages: no byte may be lost, and what is not written is 0.
void test_arena() {
  constexpr size_t kPiece = (size_t{1} << 20) + 192, kPieces = 40;
  for (int round = 0; round < 4; ++round) {
    ++comparisons;
    Arena arena(kPiece * kPieces);
    std::vector<uint8_t*> pieces;
    for (size_t i = 0; i < kPieces; ++i) pieces.push_back(arena.allocate(kPiece));
    auto write = [&](size_t from) {
      for (size_t i = from; i < kPieces; i += 2)
        for (size_t b = 0; b < kPiece - 64; ++b) pieces[i][b] = static_cast<uint8_t>(i + b % 251 + 1);
    };
    std::thread other(write, 1);
    write(0);
    other.join();
    arena.settle();
    size_t lost = 0;
    for (size_t i = 0; i < kPieces; ++i)
      for (size_t b = 0; b < kPiece; ++b)
        lost += pieces[i][b] != (b < kPiece - 64 ? static_cast<uint8_t>(i + b % 251 + 1) : 0);
    if (lost) {
      ++failures;
      std::printf("arena: %zu bytes are not as written\n", lost);
    }
  }
}

// Threads take and give back while others do; nobody's bytes are another's.
void test_temporaries() {
  ++comparisons;
  Temporaries temporaries(size_t{1} << 16);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::vector<Temporaries::Block> held;
      for (int i = 0; i < 3000; ++i) {
        held.push_back(temporaries.take(static_cast<size_t>(100 + 37 * (i % 400))));
        std::memset(held.back().memory.get(), t, held.back().bytes);
        if (held.size() < 5) continue;
        Temporaries::Block block = std::move(held[static_cast<size_t>(i % 5)]);
        held.erase(held.begin() + i % 5);
        for (size_t b = 0; b < block.bytes; ++b) wrong += block.memory[static_cast<std::ptrdiff_t>(b)] != t;
        temporaries.give_back(std::move(block));
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (wrong || temporaries.num_kept() > size_t{1} << 16) {
    ++failures;
    std::printf("temporaries: %d bytes are not as written, %zu kept\n", wrong.load(), temporaries.num_kept());
  }
}

}  // namespace

int main() {
  test_arena();
  test_temporaries();
  Runner twin(1, *find_kernels("scalar"));
  for (const char* const* isa = available_kernels(); *isa; ++isa)
    for (int threads : {1, 2, 3}) {
      const std::string name = std::string(*isa) + " threads " + std::to_string(threads);
      Runner own(threads, *find_kernels(*isa));
      const bool is_twin = std::string(*isa) == "scalar" && threads == 1;
      Runner& runner = is_twin ? twin : own;
      test_linear(twin, runner, name);
      test_gated(runner, name);
      test_pairs(runner, name);
      test_screen(twin, runner, name);
      test_rowwise(twin, runner, name);
      test_activation_accuracy(runner, name);
      test_attention(twin, runner, name);
      test_recording(runner, name);
      std::printf("%s: %d comparisons so far, %d failures\n", name.c_str(), comparisons, failures);
    }
  return failures ? 1 : 0;
}
