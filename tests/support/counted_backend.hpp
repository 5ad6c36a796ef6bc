// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A parallel backend for tests of what a call does: it counts the loops that are cut into chunks, and runs their chunks last
/// to first, so that a result that depends on their order is another.

#include <tessera/core/parallel.hpp>

namespace tessera_test {

struct counted_backend {
    struct totals {
        tessera::index_t loops = 0;
        tessera::index_t chunks = 0;
    };
    totals* seen = nullptr;

    /// More than one, so that loops are cut; all run in the calling thread.
    static constexpr tessera::index_t concurrency() noexcept { return 3; }

    template <class F>
    void run(tessera::index_t chunks, F const& f) const noexcept {
        ++seen->loops;
        seen->chunks += chunks;
        for (tessera::index_t c = chunks - 1; c >= 0; --c) f(c, c % concurrency());
    }
};

} // namespace tessera_test
