"""Through what is not linear."""


def attribute(*a):
    raise NotImplementedError
