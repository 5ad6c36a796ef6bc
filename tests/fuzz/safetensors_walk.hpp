// SPDX-License-Identifier: MIT
#pragma once

// Reads everything that a parsed safetensors file hands out: sanitizers see any view that leaves the file.

#include <tessera/interop/safetensors.hpp>

#include <cstdint>
#include <cstdlib>

namespace safetensors_test {

template <class T>
void check_size(tessera::safetensors::tensor_entry const& t) {
    if (t.type != tessera::element_type_of<T> || reinterpret_cast<std::uintptr_t>(t.bytes.data()) % alignof(T) != 0) return;
    auto const w = tessera::safetensors::as_dense<T>(t);
    if (static_cast<std::size_t>(tessera::span_bytes(w)) != t.bytes.size()) std::abort();
}

inline std::uint64_t walk(tessera::safetensors::file const& f) {
    std::uint64_t sum = 0;
    for (auto const& m : f.metadata()) sum += m.key.size() + m.value.size();
    for (auto const& t : f.tensors()) {
        for (std::byte const b : t.bytes) sum = sum * 31 + static_cast<std::uint64_t>(b);
        if (f.find_tensor(t.name) != &t) std::abort();
        check_size<float>(t);
        check_size<double>(t);
        check_size<tessera::fp16>(t);
        check_size<std::int8_t>(t);
        check_size<std::uint64_t>(t);
    }
    return sum;
}

} // namespace safetensors_test
