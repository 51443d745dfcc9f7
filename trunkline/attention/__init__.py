"""Forest layout and attention kernels. Owns no weights and no loss."""
