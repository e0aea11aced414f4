# exercise: name-server
import socket

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


def serve_names(address, names, upstream):
    """Answer, for ever, what is asked over UDP at `address`, port 53.

    names    -- {"web": "172.30.0.2", ...}: answered from here
    upstream -- address of another name server, asked for all other names
    What is no question is passed over. When upstream says nothing for a second, the answer is SERVFAIL.
    """
    ...
