#include "bind/bind.h"

NB_MODULE(_native, m) {
  m.doc() = "pellucid's native kernels; use them through pellucid.ops and pellucid.text.";
  pellucid::bind::bind_ops(m);
  pellucid::bind::bind_text(m);
  pellucid::bind::bind_sampling(m);
  pellucid::bind::bind_files(m);
}
