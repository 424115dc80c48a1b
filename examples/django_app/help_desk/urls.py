from __future__ import annotations

from django.urls import include, path

from . import views

urlpatterns = [
    path("chat", views.chat),
    path("tickets/<int:ticket_id>/summary", views.summarise),
    path("search", views.search),
    path("_llmcost/", include("costmw.integrations.django.urls")),
]
