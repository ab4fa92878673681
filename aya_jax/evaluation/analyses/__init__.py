"""What evaluation suites leave undone: statistics of single studies, computed from records of single samples."""
