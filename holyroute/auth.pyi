from requests.auth import *
