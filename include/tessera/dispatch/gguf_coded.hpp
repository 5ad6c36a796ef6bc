// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Tensors of GGUF files as `any_coded`: a program reads every block format for the compile time of its decoder.

#include "../interop/gguf.hpp"
#include "any_coded.hpp"

#include <optional>

namespace tessera::inline TESSERA_ABI::gguf {

/// The tensor as codes of one of the formats; nothing where it holds another type. The file's bytes must outlive it.
///
///     auto const w = ts::gguf::as_any_coded(file.tensor("output.weight"), ts::gguf::block_formats{}); // every format that the library reads
///
/// @throws format_error where the tensor's address is not aligned as its blocks are
template <class Arch = native_arch, block_format... Format>
std::optional<any_coded<Arch>> as_any_coded(tensor_entry const& t, format_list<Format...>) {
    std::optional<any_coded<Arch>> found;
    static_cast<void>(((t.type == detail::type_for<Format> && (found.emplace(as_blocked<Format>(t)), true)) || ...));
    return found;
}

} // namespace tessera::inline TESSERA_ABI::gguf
