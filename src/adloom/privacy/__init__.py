"""What people ask of their own data, and how long any of it is kept: erasure, opt-outs, retention."""
