//! A component that exports nothing: whoever deploys it picked the wrong file.
