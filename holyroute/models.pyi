from requests.models import *
