metadata description = 'Log Analytics workspace and Application Insights'

@description('Name of the Log Analytics workspace.')
@minLength(4)
@maxLength(63)
param workspaceName string

@description('Name of the Application Insights resource.')
param applicationInsightsName string

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Days that telemetry is kept.')
@minValue(30)
@maxValue(730)
param retentionDays int

@description('Most telemetry taken in a day in GB. -1: no limit.')
param dailyQuotaGb int

@description('Whether telemetry is taken from Entra identities only.')
param entraOnly bool

@description('Object id of the identity that may send telemetry.')
param publisherPrincipalId string

// Built-in role Monitoring Metrics Publisher: what Application Insights asks for once local authentication is off.
var metricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'

resource workspace 'Microsoft.OperationalInsights/workspaces@2026-03-01' = {
  name: workspaceName
  location: location
  tags: tags
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: retentionDays
    workspaceCapping: {
      dailyQuotaGb: dailyQuotaGb
    }
    features: {
      disableLocalAuth: true
      enableLogAccessUsingOnlyResourcePermissions: true
    }
  }
}

resource applicationInsights 'Microsoft.Insights/components@2020-02-02' = {
  name: applicationInsightsName
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    DisableLocalAuth: entraOnly
  }
}

resource publisher 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (entraOnly) {
  scope: applicationInsights
  name: guid(applicationInsights.id, publisherPrincipalId, metricsPublisher)
  properties: {
    principalId: publisherPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', metricsPublisher)
  }
}

@description('Resource id of Application Insights: the scope of the alerts and the workbook.')
output applicationInsightsId string = applicationInsights.id

@description('Name of Application Insights.')
output applicationInsightsName string = applicationInsights.name
