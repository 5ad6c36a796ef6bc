// SPDX-License-Identifier: MIT
// Any bytes as a file of placed operands: refused, or a table whose operands lie inside them; as they are, and with the hash
// of the table made right, so that what is behind that is reached.

#include <tessera/storage/placed_table.hpp>
#include <tessera/storage/prepacked.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace {

void read_all(std::span<std::byte const> bytes) {
    auto const table = tessera::placed_table::parse(bytes, tessera::panel_layout_version);
    if ((table.kind() == tessera::placed_file_kind::good) != table.reason().empty()) std::abort();
    if (table.kind() != tessera::placed_file_kind::good && table.size() != 0) std::abort();
    [[maybe_unused]] static std::uint64_t volatile sink;
    for (auto const& e : table.entries()) {
        sink = tessera::content_of(table.panels(e)).low + tessera::content_of(table.panels(e), tessera::content_check::sampled).low +
               std::strlen(e.layout);
        auto const* const found = table.find(e.key);
        if (found == nullptr || found->key != e.key) std::abort();
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    // An allocation of exactly this size: reading past its end is seen.
    std::unique_ptr<std::byte[]> const copy{new std::byte[size]};
    if (size != 0) std::memcpy(copy.get(), data, size);
    read_all({copy.get(), size});
    tessera::detail::placed_header header;
    if (size < sizeof header) return 0;
    std::memcpy(&header, copy.get(), sizeof header);
    if (header.entries > (size - sizeof header) / sizeof(tessera::placed_table::entry)) return 0;
    header.file_bytes = size;
    header.table = tessera::placed_table::hash_of(header, copy.get() + sizeof header);
    std::memcpy(copy.get(), &header, sizeof header);
    read_all({copy.get(), size});
    return 0;
}
