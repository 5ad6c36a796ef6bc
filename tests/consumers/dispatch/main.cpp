// SPDX-License-Identifier: MIT
// Runs every instruction set that the program was compiled for and this machine has, and compares them with the definition.
// Prints what was chosen; arguments: the name that is expected.

#include "kernels.hpp"

#include <tessera/interop/gguf_writer.hpp>
#include <tessera/tessera.hpp>

#include <tessera_dispatch/kernels.hpp>
#include <tessera_formats.hpp>

#include <cmath>
#include <cstdio>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

int failures = 0;
void check(bool condition, std::string const& what) {
    if (condition) return;
    std::printf("wrong: %s\n", what.c_str());
    ++failures;
}

/// The message of the error of type E that f throws.
template <class E, class F>
std::string thrown(F const& f) {
    try {
        f();
    } catch (E const& e) {
        return e.what();
    }
    return "nothing was thrown";
}

auto const make = []<class Arch>(Arch) { return make_kernels<Arch>(); };

/// Those of a list that this machine runs.
template <class... Arch>
std::vector<std::string_view> here(ts::arch_list<Arch...>) {
    std::vector<std::string_view> result;
    ((ts::supports<Arch>() ? result.push_back(Arch::name) : void()), ...);
    return result;
}

/// What `describe` calls the product of so many rows of x; the disassembly is check.cmake's.
bool names_instruction(std::string_view arch, index_t m, std::string const& described) {
    auto const says = [&](char const* text) { return described.find(text) != std::string::npos; };
    if (arch == "sse2") return says("pmaddwd") && !says("vpmaddwd");
    if (arch == "avx2") return says("vpmaddubsw") && says("256 bits");
    if (arch == "avx512") return says("vpmaddubsw") && says("512 bits");
    if (arch == "avx512_amx" && m == 40) return says("int8 tiles") || says("vpdpbusd"); // a system may refuse tiles
    return !arch.starts_with("avx512_") || (says("vpdpbusd") && says("512 bits"));
}

ts::matrix<float> numbers(index_t rows, index_t columns, std::uint64_t seed) {
    ts::matrix<float> m{rows, columns};
    ts::philox const random{seed};
    for (index_t i = 0; i < m.size(); ++i) m.data()[i] = random.normal(static_cast<std::uint64_t>(i));
    return m;
}

/// |y - expected| within the rounding of k + 2 float32 operations on terms whose magnitudes sum to `sizes`, and of storing y.
template <class Op, class Magnitudes>
void compare(ts::matrix<float> const& y, Op const& w, Magnitudes const& magnitudes, ts::matrix<float> const& x,
             std::string const& what) {
    ts::matrix<float> expected{y.extent(0), y.extent(1)}, sizes{y.extent(0), y.extent(1)}, positive{x.extent(0), x.extent(1)};
    for (index_t i = 0; i < x.size(); ++i) positive.data()[i] = std::fabs(x.data()[i]);
    ts::apply(ts::reference{}, w, x, expected);
    ts::apply(ts::reference{}, magnitudes, positive, sizes);
    double const u = std::ldexp(1.0, -24);
    double const gamma = static_cast<double>(w.cols() + 2) * u / (1 - static_cast<double>(w.cols() + 2) * u);
    for (index_t i = 0; i < y.size(); ++i) {
        double const error = std::fabs(static_cast<double>(y.data()[i]) - static_cast<double>(expected.data()[i]));
        double const bound = gamma * static_cast<double>(sizes.data()[i]) + 2 * u * std::fabs(static_cast<double>(expected.data()[i]));
        if (!(error <= bound)) return check(false, what + ": error " + std::to_string(error) + " > " + std::to_string(bound));
    }
}

void own_functions() {
    std::vector<std::vector<float>> wide; // results of the sets with registers of 512 bits
    for (std::string_view const name : here(tessera_dispatch::kernels{})) {
        auto const chosen = ts::dispatch(tessera_dispatch::kernels{}, make, name);
        check(chosen.arch() == name, "limit " + std::string{name} + " gives " + describe(chosen));
        std::vector<float> results;
        for (index_t const n : {1, 16, 37})
            for (index_t const k : {1, 33, 512})
                for (index_t const m : {0, 1, 5, 40}) {
                    ts::matrix<float> const w = numbers(n, k, 1), x = numbers(m, k, 2);
                    ts::matrix<float> y{m, n}, positive{n, k};
                    std::string const what = chosen->product(w, x, y);
                    check(what.rfind(std::string{name} + ": ", 0) == 0 && names_instruction(name, m, what),
                          std::string{name} + " says it is " + what);
                    for (index_t i = 0; i < w.size(); ++i) positive.data()[i] = std::fabs(w.data()[i]);
                    auto const q = ts::quantize<ts::int4_g32>(w), magnitudes = ts::quantize<ts::int4_g32>(positive);
                    compare(y, ts::linear{q, ts::int8_per_group<32>{}}, ts::linear{magnitudes, ts::int8_per_group<32>{}}, x, what);
                    results.insert(results.end(), y.data(), y.data() + y.size());
                }
        if (name.rfind("avx512", 0) == 0) wide.push_back(results);

        std::vector<std::string> const counted = chosen->words("b a b");
        check(counted == std::vector<std::string>{"a 1", "b 2"}, std::string{name} + " counts words");
        check(thrown<ts::format_error>([&] { chosen->words(""); }) == "no words", std::string{name} + ": format_error");
        check(thrown<std::runtime_error>([&] { chosen->words(""); }) == "no words", std::string{name} + ": as its base");
        ts::matrix<float> const w = numbers(3, 8, 1), x = numbers(2, 7, 1);
        ts::matrix<float> y{2, 3};
        check(thrown<ts::shape_error>([&] { chosen->product(w, x, y); }) ==
                  "tessera: apply: columns of x is 7, expected 8 (columns of the operator)", std::string{name} + ": shape_error");
    }
    for (auto const& results : wide) check(results == wide.front(), "integer products of 512 bit registers are the same bits");
}

void formats() {
    std::vector<float> values(24 * 512);
    ts::philox const random{3};
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.normal(i);
    std::vector<ts::q4_k::block> blocks(values.size() / 256);
    ts::encode_row<ts::q4_k>(values.data(), 24 * 512, blocks.data());
    ts::gguf::writer file;
    ts::blocked<ts::q4_k> const coded{blocks.data(), 24, 512};
    file.add_tensor("w", coded);
    auto const bytes = file.bytes();
    auto const model = ts::gguf::parse(bytes, "memory");

    ts::cpu<ts::dispatched> const exec;
    ts::matrix<float> const x = numbers(5, 512, 4);
    // The magnitudes of q4_k's terms: code times scale and the minimum together are at most 3 times the block's largest value
    // before its rounding, and x's before its.
    ts::matrix<float> magnitudes{24, 512};
    for (index_t n = 0; n < 24; ++n)
        for (index_t b = 0; b < 512; b += 32) {
            float largest = 0;
            for (index_t k = b; k < b + 32; ++k) largest = std::fmax(largest, std::fabs(values[static_cast<std::size_t>(n * 512 + k)]));
            for (index_t k = b; k < b + 32; ++k) magnitudes(n, k) = 4 * largest;
        }
    for (std::string_view const name : here(tessera_formats::archs{})) {
        auto const w = tessera_formats::all(name).place(exec, model.tensor("w"));
        std::string const what = ts::describe(exec, w, 5);
        check(what.rfind(std::string{name} + ": q4_k codes", 0) == 0 && names_instruction(name, 5, what), std::string{name} + " says it is " + what);
        ts::matrix<float> y{5, 24}, twice{5, 24};
        ts::apply(exec, w, x, y);
        compare(y, ts::linear{coded, ts::int8_per_group<32>{}}, ts::linear{magnitudes}, x, what);
        ts::apply(exec, w.view() + w.view(), x, twice);
        for (index_t i = 0; i < y.size(); ++i) check(twice.data()[i] == 2 * y.data()[i], what + ": w + w");
        ts::matrix<float> narrow{5, 23};
        check(thrown<ts::shape_error>([&] { ts::apply(exec, w, x, narrow); }).rfind("tessera: apply: columns of y is 23", 0) == 0,
              what + ": shape_error");
    }
    ts::gguf::tensor_entry other = model.tensor("w");
    other.type = ts::gguf::tensor_type::q6_k;
    check(thrown<ts::unsupported_error>([&] { tessera_formats::all().place(exec, other); }) ==
              "tessera: gguf: tensor 'w' is q6_k, expected one of the formats that were added: f32, f16, bf16, q4_k",
          "a format that is not there");
}

void bad_limits() {
    auto const all = tessera_dispatch::kernels{};
    check(thrown<ts::unsupported_error>([&] { ts::best_arch(all, "avx3"); }) ==
              "tessera: dispatch: the limit is 'avx3', expected one of " + names(ts::known_archs{}), "an unknown limit");
    check(thrown<ts::unsupported_error>([&] { ts::best_arch(all, "neon64"); }) ==
              "tessera: dispatch: the limit is 'neon64', but this processor runs " + ts::describe_processor(), "another processor's");
    check(thrown<ts::unsupported_error>([&] { ts::best_arch(ts::arch_list<ts::neon64>{}); }) ==
              "tessera: dispatch: compiled for neon64, but this processor runs " + ts::describe_processor(), "nothing to choose");
}

} // namespace

int main(int count, char const* const* argument) {
    try {
        auto const best = ts::dispatch(tessera_dispatch::kernels{}, make);
        std::printf("%s\n", describe(best).c_str());
        if (count > 1) return best.arch() == argument[1] ? 0 : 1;
        own_functions();
        formats();
        bad_limits();
    } catch (std::exception const& e) {
        std::printf("%s\n", e.what());
        return 2;
    }
    std::printf("%d wrong\n", failures);
    return failures == 0 ? 0 : 1;
}
