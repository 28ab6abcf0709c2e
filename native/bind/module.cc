#include "bind/bind.h"

NB_MODULE(_native, m) {
  m.doc() = "pellucid's native kernels; use them through pellucid.ops and pellucid.text.";
#ifdef NDEBUG  // a thread that outlives the interpreter's end keeps objects: no fault, and nothing for a user to read
  nanobind::set_leak_warnings(false);
#endif
  pellucid::bind::bind_ops(m);
  pellucid::bind::bind_text(m);
  pellucid::bind::bind_sampling(m);
  pellucid::bind::bind_files(m);
}
