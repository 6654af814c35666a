"""What a shift supervisor watches: whether it dials, and how well."""
