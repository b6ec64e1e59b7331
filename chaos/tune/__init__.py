"""Searches the settings of an exchange for those that bear a suite of storms best."""
