"""opened the FIFO and closed it again"""


# exercise: wait-for-start
def hold(fifo, become):
    with open(fifo) as line:
        line.read(1)
    become()
