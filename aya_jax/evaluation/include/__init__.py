"""INCLUDE: exams in 44 languages, in four prompt styles."""
