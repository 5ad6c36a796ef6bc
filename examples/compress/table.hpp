// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What was measured, as a table in Markdown, as JSON and as a plot.

#include "judge.hpp"

#include <string>
#include <vector>

namespace compress {

struct table {
    std::string title;
    std::vector<std::string> setting; ///< lines above the table: what was measured, on what
    std::vector<std::string> notes;   ///< below it
    std::vector<result> rows;
};

/// Columns that no row has are left out.
std::string markdown(table const& t);
std::string json(table const& t);
std::string picture(table const& t);

/// Makes a folder for the files below.
/// @throws tessera::format_error when nothing can be written there
void check_writable(std::string const& folder);

/// Writes compress.md, compress.json and compress.svg into a folder.
/// @throws tessera::format_error when that is not possible
void write(table const& t, std::string const& folder);

} // namespace compress
