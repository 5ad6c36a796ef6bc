// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Arrays that a make.py of tests/data wrote: <stem>.index has a line "name offset extents..." for each, offsets in elements of
/// four bytes, and <stem>.bin the elements.

#include <doctest/doctest.h>

#include <tessera/core/view.hpp>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace tessera_test {

struct array {
    std::vector<tessera::index_t> shape;
    std::vector<float> data;

    tessera::vector_view<float const> vector() const { return tessera::vector_view<float const>(data.data(), shape[0]); }
    tessera::matrix_view<float const> matrix() const { return tessera::matrix_view<float const>(data.data(), shape[0], shape[1]); }
    tessera::tensor_view<float const, 3> heads() const {
        return tessera::tensor_view<float const, 3>(data.data(), shape[0], shape[1], shape[2]);
    }
    /// Rows [first, last) of matrix i of several.
    tessera::matrix_view<float const> rows_of(tessera::index_t i, tessera::index_t first, tessera::index_t last) const {
        return tessera::matrix_view<float const>(data.data() + (i * shape[1] + first) * shape[2], last - first, shape[2]);
    }
    double operator()(tessera::index_t i, tessera::index_t k) const { return double{matrix()(i, k)}; }
    std::int32_t integer(tessera::index_t i) const {
        std::int32_t value;
        std::memcpy(&value, data.data() + i, sizeof value);
        return value;
    }
};

/// @param stem below tests/data, without its ending
inline std::map<std::string, array> read_arrays(std::string const& stem) {
    std::map<std::string, array> result;
    std::string const path = std::string{TESSERA_TEST_DATA} + "/" + stem;
    std::ifstream index{path + ".index"};
    std::ifstream bytes{path + ".bin", std::ios::binary};
    REQUIRE(index);
    REQUIRE(bytes);
    for (std::string line; std::getline(index, line);) {
        std::istringstream words{line};
        std::string name;
        tessera::index_t offset = 0;
        words >> name >> offset;
        array a;
        std::size_t size = 1;
        for (tessera::index_t extent = 0; words >> extent; size *= static_cast<std::size_t>(extent)) a.shape.push_back(extent);
        a.data.resize(size);
        bytes.seekg(offset * 4);
        bytes.read(reinterpret_cast<char*>(a.data.data()), static_cast<std::streamsize>(size * 4));
        REQUIRE(bytes);
        result.emplace(name, a);
    }
    return result;
}

} // namespace tessera_test
