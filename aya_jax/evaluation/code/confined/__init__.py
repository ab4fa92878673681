"""The launcher of one untrusted program: a folder that an isolated interpreter executes, outside the package."""
