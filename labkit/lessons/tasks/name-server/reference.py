# exercise: name-server
import socket

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


def ask_upstream(data, upstream):
    """The other server's answer, or None when it says nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.settimeout(1)
        try:
            there.connect((upstream, 53))
            there.send(data)
            return there.recv(4096)
        except OSError:
            return None


def reply(data, names, upstream):
    query = dns.message.from_wire(data)
    response = dns.message.make_response(query, recursion_available=True)
    asked = query.question[0]
    name = asked.name.to_text(omit_final_dot=True).lower()
    if name not in names:
        if answer := ask_upstream(data, upstream):
            return answer
        response.set_rcode(dns.rcode.SERVFAIL)
    elif asked.rdtype == dns.rdatatype.A:
        response.answer.append(dns.rrset.from_text(asked.name, 5, "IN", "A", names[name]))
    return response.to_wire()


def serve_names(address, names, upstream):
    """Answer, for ever, what is asked over UDP at `address`, port 53."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind((address, 53))
        while True:
            data, caller = here.recvfrom(4096)
            try:
                answer = reply(data, names, upstream)
            except (dns.exception.DNSException, IndexError):
                continue  # no question that one could answer
            here.sendto(answer, caller)
