from requests.compat import *
