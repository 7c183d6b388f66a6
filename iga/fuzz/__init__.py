"""The search behind `iga fuzz`: it drives every check of the registry to where no sample goes."""
