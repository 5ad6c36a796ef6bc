// SPDX-License-Identifier: MIT
// expect: defines no entry for sse2
// expect: It defines _Z5entryv
int entry();
int entry() {
    return 1;
}
template <class Arch>
int made() {
    return 2;
}
template int made<struct sse2>();
