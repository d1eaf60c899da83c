"""One file per method; the file's name is the method's name. Imported as `petlbench.methods`."""

if __name__ == "methods":
    raise ImportError("import petlbench.methods, not methods: one method must not exist twice")
