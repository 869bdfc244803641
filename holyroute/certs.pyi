from requests.certs import *
