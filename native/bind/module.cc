#include "bind/bind.h"

NB_MODULE(_native, m) {
  m.doc() = "pellucid's native kernels; use them through pellucid.ops and pellucid.text.";
  // A daemon thread that is put to sleep at the interpreter's end keeps its objects: no fault, and no news for a user.
  nanobind::set_leak_warnings(false);
  pellucid::bind::bind_memory(m);
  pellucid::bind::bind_ops(m);
  pellucid::bind::bind_text(m);
  pellucid::bind::bind_sampling(m);
  pellucid::bind::bind_cuts(m);
  pellucid::bind::bind_files(m);
}
