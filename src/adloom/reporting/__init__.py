"""What people look at: published snapshots of the warehouse, and one page written from them."""
