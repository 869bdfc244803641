from requests.status_codes import *
