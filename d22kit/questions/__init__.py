"""The questions: any frame in, a small tidy frame out."""
