"""What tests of several folders share: paths, and programs that they start."""
