// SPDX-License-Identifier: MIT
// Any bytes: gguf::parse throws format_error, or hands out views that stay inside them.

#include "gguf_walk.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    // An allocation of exactly this size, aligned as a mapped file is: reading past its end is seen.
    std::unique_ptr<std::byte[]> const copy{new std::byte[size]};
    if (size != 0) std::memcpy(copy.get(), data, size);
    try {
        auto const file = tessera::gguf::parse({copy.get(), size}, "fuzz");
        gguf_test::walk const all{file};
        [[maybe_unused]] static std::uint64_t volatile sink;
        sink = all.sum();
    } catch (tessera::format_error const&) {
        return 0;
    }
    return 0;
}
