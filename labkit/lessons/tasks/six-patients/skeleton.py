# exercise: six-patients
def heal(name, config):
    """(step, config): the step of its birth that this one does not survive, and a config.json with which it lives.

    name   -- "one" to "six"
    config -- its config.json; config["annotations"]["purpose"] says what the container is for, and must come true
    """
    ...
