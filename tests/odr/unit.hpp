// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

/// What dispatch_unit.cpp does once for each instruction set.
struct unit {
    char const* arch;
    float (*sum)(std::vector<float> const& x);
    std::vector<std::string> (*words)(std::string const& text); ///< throws shape_error where there are none
};

template <class Arch>
unit make_unit();
