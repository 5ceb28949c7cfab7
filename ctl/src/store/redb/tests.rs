//! The file, used well and ill.
