// SPDX-License-Identifier: MIT
// Any bytes: npy::parse throws format_error, or hands out an array that stays inside them.

#include <tessera/interop/npy.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace {

/// The last element of a view is the last of the bytes.
template <class T, std::size_t Rank>
void check(tessera::npy::array const& a) {
    if (a.type != tessera::element_type_of<T> || a.rank != Rank) return;
    if (reinterpret_cast<std::uintptr_t>(a.bytes.data()) % alignof(T) != 0) return;
    auto const v = tessera::npy::as_view<T, Rank>(a);
    if (static_cast<std::size_t>(tessera::span_bytes(v)) != a.bytes.size()) std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    // An allocation of exactly this size, aligned as a mapped file is: reading past its end is seen.
    std::unique_ptr<std::byte[]> const copy{new std::byte[size]};
    if (size != 0) std::memcpy(copy.get(), data, size);
    try {
        tessera::npy::array const a = tessera::npy::parse({copy.get(), size}, "fuzz");
        std::uint64_t sum = 0;
        for (std::byte const b : a.bytes) sum = sum * 31 + static_cast<std::uint64_t>(b);
        [[maybe_unused]] static std::uint64_t volatile sink;
        sink = sum;
        check<float, 0>(a);
        check<float, 1>(a);
        check<float, 2>(a);
        check<double, 2>(a);
        check<std::int16_t, 3>(a);
    } catch (tessera::format_error const&) {
        return 0;
    }
    return 0;
}
