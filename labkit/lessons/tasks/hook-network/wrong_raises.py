"""the container was not made"""


# exercise: hook-network
def attach(state):
    return state["annotations"]["network"]
