# SPDX-License-Identifier: MIT
# A recipe for Conan 2. Not in Conan's index; from the root of this repository:
#     conan create cmake/packaging/conan -s compiler.cppstd=20 --build=missing
# Untested against that index; cmake/packaging/README.md says what was tried.
import os
import re

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy, load
from conan.tools.layout import basic_layout


class TesseraConan(ConanFile):
    name = "tessera"
    description = "Efficient machine learning as a small algebra of operators"
    license = "MIT"
    topics = ("quantization", "machine-learning", "simd", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"with_openmp": [True, False], "with_eigen": [True, False]}
    default_options = {"with_openmp": True, "with_eigen": False}
    no_copy_source = True

    @property
    def _root(self):
        return os.path.normpath(os.path.join(self.recipe_folder, "..", "..", ".."))

    def set_version(self):
        text = load(self, os.path.join(self._root, "include", "tessera", "core", "macros.hpp"))
        self.version = ".".join(re.findall(r"define TESSERA_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", text))

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "include/*", "cmake/*.cmake", "cmake/*.in"):
            copy(self, pattern, self._root, self.export_sources_folder)

    def layout(self):
        basic_layout(self)

    def requirements(self):
        self.requires("xsimd/13.0.0", transitive_headers=True)
        if self.options.with_eigen:
            self.requires("eigen/3.4.0", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)
        if self.settings.compiler == "gcc" and int(str(self.settings.compiler.version).split(".")[0]) < 12:
            raise ConanInvalidConfiguration("tessera needs g++ 12 or newer")

    def package_id(self):
        self.info.clear()

    def package(self):
        # Headers, and the CMake functions for formats and instruction sets; targets are made by package_info.
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        copy(self, "*", os.path.join(self.source_folder, "include"), os.path.join(self.package_folder, "include"))
        for module in ("tessera_formats", "tessera_dispatch", "tessera_localise"):
            copy(self, module + ".cmake", os.path.join(self.source_folder, "cmake"), os.path.join(self.package_folder, "cmake"))

    def package_info(self):
        self.cpp_info.set_property("cmake_file_name", "tessera")
        self.cpp_info.set_property("pkg_config_name", "tessera")
        self.cpp_info.set_property("cmake_build_modules", ["cmake/tessera_formats.cmake", "cmake/tessera_dispatch.cmake"])
        self.cpp_info.builddirs = ["cmake"]

        core = self.cpp_info.components["core"]
        core.set_property("cmake_target_name", "tessera::tessera")
        core.bindirs, core.libdirs = [], []
        core.requires = ["xsimd::xsimd"]
        if self.settings.os in ("Linux", "FreeBSD"):
            core.system_libs = ["pthread"]

        if self.options.with_openmp:
            openmp = self.cpp_info.components["openmp"]
            openmp.set_property("cmake_target_name", "tessera::openmp")
            openmp.bindirs, openmp.libdirs = [], []
            openmp.requires = ["core"]
            flags = ["-openmp:llvm"] if self.settings.compiler == "msvc" else ["-fopenmp"]
            openmp.cxxflags, openmp.sharedlinkflags, openmp.exelinkflags = flags, flags, flags
        if self.options.with_eigen:
            eigen = self.cpp_info.components["eigen"]
            eigen.set_property("cmake_target_name", "tessera::eigen")
            eigen.bindirs, eigen.libdirs = [], []
            eigen.requires = ["core", "eigen::eigen"]
