// A target of C needs a source file. What is here is the header and the module map in `include`.
