"""The rules I1 to I13, checked on the complete history of an exchange by code that shares nothing with its own."""
