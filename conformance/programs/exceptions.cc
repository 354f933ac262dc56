// C++ exceptions through a library: types, destructors, rethrowing.
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

int thrower(int depth, int *unwound);
int rethrower(int depth, int *unwound);

int main() {
  int unwound = 0;
  for (int n = 0; n < 50; n++) {
    try {
      thrower(n, &unwound);
    } catch (const std::exception &e) {
      if (n % 10 == 0) std::printf("%d %s\n", n, e.what());
    }
  }
  std::printf("unwound %d\n", unwound);
  try {
    rethrower(5, &unwound);
  } catch (const std::logic_error &e) {
    std::printf("%s\n", e.what());
  }
  try {
    std::vector<int> v(3);
    v.at(7) = 1;
  } catch (const std::out_of_range &) {
    std::puts("out of range");
  }
  try {
    throw std::string("a string");
  } catch (int) {
    std::puts("wrong");
  } catch (const std::string &s) {
    std::printf("caught %s\n", s.c_str());
  }
  try {
    try {
      thrower(3, &unwound);
    } catch (...) {
      throw;
    }
  } catch (const std::runtime_error &) {
    return 5;
  }
}
